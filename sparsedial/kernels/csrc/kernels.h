/* Every compiled kernel; `native.py` reads this file for their names and arguments. Plain C without headers of Python
 * or PyTorch, so it fits every version of them. Each kernel has a readable twin in Python that defines it, and tests
 * compare values and gradients by name. One call computes a whole layer: at a study's sizes the calls take longer than
 * their arithmetic.
 *
 * Tensors come as addresses of contiguous float32 (or int64) data. Weights that are `void` are in bfloat16 where `half`
 * is 1; products are summed in float32 all the same. Sizes are not checked here: a model's come from its
 * Shape, and `sparse_feed_forward` checks its arguments. What a backward pass needs lies in one piece of memory,
 * `saved`; the kernel's ..._saved returns its size in floats. A kernel that gives an int gives 0 where it is done, and
 * NO_MEMORY where its own scratch could not be had: bridge.py raises MemoryError then. */
#pragma once
#include "common.h"

#pragma GCC visibility push(default)

long attention_saved(long tokens, long d, long heads, long kv_heads, long c);
int attention_forward(const float *x, const float *norm, const float *w_qkv, const float *q_norm, const float *k_norm,
                       const float *cosine, const float *sine, const float *w_out, float *y, float *saved,
                       long sequences, long s, long d, long heads, long kv_heads, long c, float eps, int threads);
int attention_backward(const float *dy, const float *x, const float *norm, const float *w_qkv, const float *q_norm,
                        const float *k_norm, const float *cosine, const float *sine, const float *w_out, float *saved,
                        float *dx, float *dnorm, float *dw_qkv, float *dq_norm, float *dk_norm, float *dw_out,
                        long sequences, long s, long d, long heads, long kv_heads, long c, int threads);

int causal_forward(const float *q, const float *k, const float *v, float *y, float *normaliser, long sequences, long s,
                    long heads, long kv_heads, long c, long width, float scale, int threads);
int causal_backward(const float *dy, const float *q, const float *k, const float *v, float *y, float *normaliser,
                     float *dq, float *dk, float *dv, long sequences, long s, long heads, long kv_heads, long c,
                     long width, float scale, int threads);

long dense_saved(long tokens, long d, long f);
int dense_forward(const float *x, const float *norm, const void *w_in, const void *w_out, const float *gate_weights,
                   const float *down_norms, float *y, float *saved, long tokens, long d, long f, float least_gate,
                   float least_written, float eps, int half, int threads);
int dense_backward(const float *dy, const float *x, const float *norm, const float *w_in, const float *w_out,
                    float *saved, float *dx, float *dnorm, float *dw_in, float *dw_out, long tokens, long d, long f,
                    int threads);

long experts_saved(long tokens, long f, long e, long k);
int experts_forward(const float *x, const float *w_in, const float *w_out, const int64_t *chosen, const float *gates,
                     const int64_t *top_k, float *y, float *saved, long tokens, long d, long f, long e, long k,
                     int threads);
int experts_backward(const float *dy, const float *x, const float *w_in, const float *w_out, const float *gates,
                      float *saved, float *dx, float *dw_in, float *dw_out, float *dgates, long tokens, long d, long f,
                      long e, long k, int threads);

long sparse_saved(long sequences, long tokens, long d, long f, long m, long e, long k);
int sparse_forward(const float *x, const float *norm, const float *w_router, const float *bias, const void *w_in,
                    const void *w_out, const void *shared_in, const void *shared_out, const int64_t *top_k,
                    float *y, float *saved, float *loss, int64_t *load, long sequences, long s, long d, long f,
                    long m, long e, long k, long groups, long kept_groups, int sigmoid, int normalize, int ones,
                    float scaling, float balance, float z, float top_p, float eps, int learning, int half,
                    int threads);
int sparse_backward(const float *dy, const float *dloss, const float *x, const float *norm, const float *w_router,
                     const float *w_in, const float *w_out, const float *shared_in, const float *shared_out,
                     float *saved, float *dx, float *dnorm, float *dw_router, float *dw_in, float *dw_out,
                     float *dshared_in, float *dshared_out, long sequences, long s, long d, long f, long m, long e,
                     long k, long groups, long kept_groups, int sigmoid, int normalize, int ones, float scaling,
                     float balance, float z, float top_p, int threads);

int head_forward(const float *x, const float *norm, const float *table, const int64_t *target, const float *weight,
                 float *loss, float *each, float *dx, float *dnorm, float *dtable, long tokens, long d, long v,
                 float eps, int threads);

void norm_rows(const float *x, const float *w, float *y, long rows, long d, float eps, int threads);
void split_heads(const float *qkv, const float *q_norm, const float *k_norm, const float *cosine, const float *sine,
                 float *q, float *k, float *v, long sequences, long s, long heads, long kv_heads, long c, int apart,
                 float eps, int threads);

int weights_product(const float *x, const void *w, float *y, long tokens, long k, long n, int half, int threads);
void half_logits(const float *normed, const void *table, float *logits, long tokens, long d, long words, int threads);

/* The sizes of a model (those of its layers are in decode_layer) and of its cache. */
struct decode_sizes {
    int64_t layers, slots, length;                 /* of the cache: sequences, and positions of each */
    int64_t d, heads, kv_heads, c, words;
    int64_t whole_norm, sigmoid, normalize, ones, half; /* 0 or 1 */
    int64_t groups, kept_groups;                   /* of experts */
    int64_t rank, query_rank, unrotated, rotated, v; /* of latent attention; 0 without */
    float scaling, top_p, eps, scale;
};

/* A layer's weights and sizes; NULL or 0 where it has none. */
struct decode_layer {
    const void *w_qkv, *w_out, *w_in, *w_down, *shared_in, *shared_down;
    const void *query_down, *query, *latent, *up; /* of latent attention */
    const void *up_rows; /* [F, D]; NULL: all neurons of a dense layer take part */
    const float *attention_norm, *b_qkv, *q_norm, *k_norm, *query_norm, *latent_norm;
    const float *feed_forward_norm, *router, *bias, *shared_gate, *gate_weights, *down_norms; /* of neurons [F], [F] */
    float least_gate, least_written;                  /* scores of a neuron whose up is read, and its down */
    int64_t window, width, shared_width, experts, top_k; /* widths of an expert or dense layer, of all shared experts */
};

/* A sequence's new token, its slot in the cache, and its position there. */
struct decode_row {
    int64_t token, slot, position;
};

long decode_scratch(const struct decode_sizes *sizes, const struct decode_layer *layers, int threads);
void decode(const struct decode_sizes *sizes, const struct decode_layer *layers, const struct decode_row *rows,
            const int64_t *top_k, long count, const void *embedding, const float *norm, const void *unembedding,
            const float *cosine, const float *sine, float *keys, float *values, float *logits, float *scratch,
            int threads);

double gradient_norm(const float *const *gradients, const int64_t *sizes, long count, int threads);
void adamw(float *const *parameters, const float *const *gradients, float *const *firsts, float *const *seconds,
           const int64_t *sizes, long count, float rate, float beta1, float beta2, float epsilon, float decay,
           float correction1, float correction2, int threads);

/* Where a matrix lies in a parameter: from the value `first`, rows of `width` values that are `length` apart. */
struct muon_place {
    int64_t parameter, first, height, width, length;
};

int muon(float *const *parameters, const float *const *gradients, float *const *momenta,
          const struct muon_place *places, long count, float rate, float decay, float momentum, float scale,
          float first, float third, float fifth, int iterations, int threads);

void transpose(const void *values, void *to, long rows, long columns, long values_row, long to_row, int half,
               int threads);

/* CRC-32 of this file as it was when the library was built. */
int header_checksum(void);

#pragma GCC visibility pop
