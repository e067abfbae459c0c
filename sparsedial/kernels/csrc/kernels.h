/* Every kernel. Plain C, no header of PyTorch, so any version of it will do; each has a readable twin in Python that
 * defines it, and tests compare values and gradients. At a study's sizes a training step is some two thousand calls whose
 * arithmetic takes less time than the calls: hence one call for what belongs together.
 *
 * Tensors come as addresses of contiguous float32 (or int64) data; sizes are checked on the Python side. */
#pragma once
#include "common.h"

void norm_forward(const float *x, const float *w, float *y, float *reciprocal, long rows, long d, float eps,
                  int threads);
void norm_backward(const float *dy, const float *x, const float *w, const float *reciprocal, float *dx, float *dw,
                   long rows, long d, int threads);
void heads_forward(const float *qkv, const float *w, const float *cosine, const float *sine, float *qk, float *v,
                   float *reciprocal, long b_count, long s_count, long turned, long values, long c, float eps,
                   int threads);
void heads_backward(const float *dqk, const float *dv, const float *qkv, const float *w, const float *cosine,
                    const float *sine, const float *reciprocal, float *dqkv, float *dw, long b_count, long s_count,
                    long turned, long values, long c, int threads);

void attention_forward(const float *qk, const float *v, float *y, float *normaliser, long b_count, long heads,
                       long kv_heads, long s, long c, float scale, int threads);
void attention_backward(const float *dy, const float *y, const float *qk, const float *v, const float *normaliser,
                        float *dqk, float *dv, long b_count, long heads, long kv_heads, long s, long c, float scale,
                        int threads);

void activate(const float *h, float *a, long rows, long f, int threads);
void activate_backward(float *h, const float *da, float *a, long rows, long f, int threads);
void sort_rows(const int64_t *chosen, long rows, long experts, int32_t *order, int32_t *place, int32_t *ends);
void sparse_forward(const float *x, const float *w_in, const float *w_out, const int32_t *order, const int32_t *place,
                    const int32_t *ends, const float *gates, float *h, float *rows, float *y, long tokens, long top_k,
                    long experts, long d, long f, int threads);
void sparse_backward(const float *dy, const float *x, const float *w_in, const float *w_out, const int32_t *order,
                     const int32_t *place, const int32_t *ends, const float *gates, float *h, const float *rows,
                     float *dx, float *dw_in, float *dw_out, float *dgates, float *dx_rows, long tokens, long top_k,
                     long experts, long d, long f, int threads);

void route_forward(const float *logits, const float *bias, float *scores, int64_t *chosen, float *gates,
                   float *normaliser, float *total, float *picked_sum, float *kept, float *mean, float *loss,
                   long sequences, long positions, long e, long top_k, int sigmoid, int normalize, float scaling,
                   float balance, float z, int threads);
void route_backward(const float *dgates, const float *logits, const float *scores, const int64_t *chosen,
                    const float *gates, const float *normaliser, const float *total, const float *picked_sum,
                    const float *kept, float *dlogits, long sequences, long positions, long e, long top_k, int sigmoid,
                    int normalize, float scaling, float balance, float z, int threads);

void entropy_forward(const float *logits, const int64_t *target, float *normaliser, float *loss, long tokens, long v,
                     int threads);
void entropy_backward(const float *dloss, const float *logits, const int64_t *target, const float *normaliser,
                      float *dlogits, long tokens, long v, int threads);
