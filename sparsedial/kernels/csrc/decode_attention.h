/* Attention of one new position of some sequences, whose keys and values go to the cache. To be called by every thread
 * of a parallel region. Twins: GroupedAttention and LatentAttention in model/attention.py.
 *
 * B rows, each of another sequence, D d_model, H query heads, G of keys and values, C head_dim, Q = (H + 2G)*C, P cached
 * positions; of latent attention R rank of the latent, A of the query, U unrotated and W rotated channels of a query
 * head, V of a value. */
#pragma once
#include "kernels.h"
#include "rows.h"
#include "stream.h"

typedef struct decode_sizes sizes_t;
typedef struct decode_layer layer_t;

#define LATENT_EPS 1e-6f /* as model/attention.py */

/* One query over its positions, whose keys and values lie in order; `scores` is scratch, `next` the keys of the head
 * that comes after. */
static void attend_one(const float *q, const float *keys, const float *values, long from, long to, long c, float scale,
                       float *scores, float *y, const float *next) {
    for (long p = from; p < to; p++) {
        fetch(values + p * c, sizeof(float) * c);
        scores[p - from] = dot(q, keys + p * c, c);
    }
    float sum = exponentials(scores, to - from, scale, largest(scores, to - from) * scale);
    memset(y, 0, sizeof(float) * c);
    for (long p = from; p < to; p++) {
        fetch(next + p * c, sizeof(float) * c);
        axpy(y, values + p * c, scores[p - from] / sum, c);
    }
}

/* A step of decoding, which all threads share. */
typedef struct {
    const sizes_t *sizes;
    const struct decode_row *rows;
    long count; /* of rows: B */
    const float *cosine, *sine;
    int threads;
    float *x, *q, *mixed; /* [B, D] stream, [B, query_floats], [B, H, C or V] */
    float *h, *a;         /* of the feed-forward rows */
    int32_t *open, *opened; /* of a layer with a threshold: neurons that a row has open, and how many each thread found */
    float *owned;         /* of each thread `own_floats`, its own_t, whose sums come first */
    long own_floats;
} step_t;

/* Scratch of each thread. */
typedef struct {
    float *sums, *normed, *some; /* [B, D], [B, D], [2B, D] */
    float *logits;               /* [B, whole vectors of E] of the router */
    float *scores;               /* [length] */
    float *queries, *head;       /* [B, A], [2R + W]; of latent attention */
} own_t;

/* A layer's part of the cache: keys and values [slots, G, length, C], or latents and rotated keys, where G is 1. */
typedef struct { float *keys, *values; } kept_t;

static long query_floats(const sizes_t *s) {
    return s->rank ? s->query_rank + s->rank + s->rotated + s->heads * s->c : (s->heads + 2 * s->kv_heads) * s->c;
}

static long mixed_floats(const sizes_t *s) { return s->heads * (s->rank ? s->v : s->c); }

/* Channels of a head that are rotated by the position. */
static long rotated_channels(const sizes_t *s) { return s->rank ? s->rotated : s->c; }

static kept_t kept_of(const sizes_t *s, long number, float *keys, float *values) {
    long positions = number * s->slots * (s->rank ? 1 : s->kv_heads) * s->length;
    return (kept_t){keys + positions * (s->rank ? s->rank : s->c), values + positions * rotated_channels(s)};
}

/* The first position that the layer's window leaves to a row. */
static long first_seen(const layer_t *layer, const struct decode_row *row) {
    return layer->window && row->position >= layer->window ? row->position + 1 - layer->window : 0;
}

/* A head, normed and rotated; with `whole_rms` above 0 it is normed by that, as OLMoE norms all heads together. */
static void rotate_head(const float *in, const float *norm, float whole_rms, const float *cosine, const float *sine,
                 float *out, long c, float eps) {
    if (whole_rms == 0) {
        rotate_row(in, norm, cosine, sine, out, c, eps);
        return;
    }
    float normed[c];
    for (long i = 0; i < c; i++) normed[i] = in[i] * whole_rms * norm[i];
    rotate_row(normed, NULL, cosine, sine, out, c, eps);
}

/* Where the keys or values of row and head `bg` lie. */
static float *head_of(float *part, const step_t *at, long bg) {
    const sizes_t *s = at->sizes;
    return part + (at->rows[bg / s->kv_heads].slot * s->kv_heads + bg % s->kv_heads) * s->length * s->c;
}

/* Stores the new position's key and value of one head in the cache, then mixes values for the head's queries. */
static void one_head(const step_t *at, const layer_t *layer, const kept_t *cache, long bg, float *scores) {
    const sizes_t *s = at->sizes;
    long row = bg / s->kv_heads, g = bg % s->kv_heads, position = at->rows[row].position;
    long c = s->c, group = s->heads / s->kv_heads, wide = s->heads * c, narrow = s->kv_heads * c;
    const float *q = at->q + row * query_floats(s), *q_norm = layer->q_norm, *k_norm = layer->k_norm;
    const float *cosine = at->cosine + position * c, *sine = at->sine + position * c;
    const float *next = head_of(cache->keys, at, at_most(at->count * s->kv_heads - 1, bg + at->threads));
    float *keys = head_of(cache->keys, at, bg), *values = head_of(cache->values, at, bg);
    float q_rms = 0, k_rms = 0, rotated[c];
    int whole_norm = s->whole_norm;
    if (whole_norm) {
        q_rms = 1.0f / sqrtf(dot(q, q, wide) / (float)wide + s->eps);
        k_rms = 1.0f / sqrtf(dot(q + wide, q + wide, narrow) / (float)narrow + s->eps);
    }
    rotate_head(q + wide + g * c, whole_norm ? k_norm + g * c : k_norm, k_rms, cosine, sine, keys + position * c, c,
                s->eps);
    memcpy(values + position * c, q + wide + narrow + g * c, sizeof(float) * c);
    for (long h = g * group; h < (g + 1) * group; h++) {
        rotate_head(q + h * c, whole_norm ? q_norm + h * c : q_norm, q_rms, cosine, sine, rotated, c, s->eps);
        attend_one(rotated, keys, values, first_seen(layer, at->rows + row), position + 1, c, s->scale, scores,
                   at->mixed + row * wide + h * c, next);
    }
}

/* From the normed stream to the heads' mixtures. `w_out` is what is read next. */
static void grouped_attention(const step_t *at, const layer_t *layer, const kept_t *cache, const own_t *own,
                              const piece_t *w_out) {
    const sizes_t *s = at->sizes;
    long q = query_floats(s);
    int half = (int)s->half;
    range_t columns = own_columns(q, at->threads);
    stream(own->normed, s->d, at->q, q, at->count, (piece_t){layer->w_qkv, q, {0, s->d}, columns, half}, 0, w_out);
    if (layer->b_qkv)
        for (long row = 0; row < at->count; row++)
            axpy(at->q + row * q + columns.from, layer->b_qkv + columns.from, 1.0f, columns.to - columns.from);
#pragma omp barrier
#pragma omp for schedule(static, 1) /* all threads share a long sequence's heads */
    for (long bg = 0; bg < at->count * s->kv_heads; bg++) one_head(at, layer, cache, bg, own->scores);
}

/* Projects one head's query to the latent, mixes the cached latents, and projects the mixture to the head's value. The
 * cache's keys are latents [P, R]; its values are the rotated keys [P, W], which all heads share. */
static void latent_head(const step_t *at, const layer_t *layer, const kept_t *cache, const float *q, long row, long h,
                        const own_t *own) {
    const sizes_t *s = at->sizes;
    long r = s->rank, u = s->unrotated, w = s->rotated, line = s->heads * (u + s->v);
    long slot = at->rows[row].slot, position = at->rows[row].position, from = first_seen(layer, at->rows + row);
    const float *latents = cache->keys + slot * s->length * r, *keys = cache->values + slot * s->length * w;
    long own_up = h * (u + s->v);
    int half = (int)s->half;
    float wide[u > s->v ? u : s->v];
    float *query = own->head, *mix = query + r, *rotated = mix + r, *y = at->mixed + (row * s->heads + h) * s->v;
    float *scores = own->scores;
    for (long i = 0; i < r; i++) query[i] = dot(q, as_floats(layer->up, own_up + i * line, u, wide, half), u);
    rotate_row(q + u, NULL, at->cosine + position * w, at->sine + position * w, rotated, w, 0);
    long count = position + 1 - from;
    for (long p = 0; p < count; p++)
        scores[p] = dot(query, latents + (from + p) * r, r) + dot(rotated, keys + (from + p) * w, w);
    float sum = exponentials(scores, count, s->scale, largest(scores, count) * s->scale);
    memset(mix, 0, sizeof(float) * r);
    for (long p = 0; p < count; p++) axpy(mix, latents + (from + p) * r, scores[p] / sum, r);
    memset(y, 0, sizeof(float) * s->v);
    for (long i = 0; i < r; i++) axpy(y, as_floats(layer->up, own_up + u + i * line, s->v, wide, half), mix[i], s->v);
}

/* As grouped_attention. Source: DeepSeek-V2 (arXiv 2405.04434), section 2.1 */
static void latent_attention(const step_t *at, const layer_t *layer, const kept_t *cache, const own_t *own,
                             const piece_t *w_out) {
    const sizes_t *s = at->sizes;
    long b = at->count, a = s->query_rank, r = s->rank, w = s->rotated, all = s->heads * s->c, line = query_floats(s);
    int half = (int)s->half;
    piece_t query = {layer->query, all, {0, a ? a : s->d}, own_columns(all, at->threads), half};
    piece_t latent = {layer->latent, r + w, {0, s->d}, own_columns(r + w, at->threads), half};
    stream(own->normed, s->d, at->q + a, line, b, latent, 0, &query);
    if (a) {
        piece_t down = {layer->query_down, a, {0, s->d}, own_columns(a, at->threads), half};
        stream(own->normed, s->d, at->q, line, b, down, 0, &query);
#pragma omp barrier
        for (long row = 0; row < b; row++)
            norm_row(at->q + row * line, layer->query_norm, own->queries + row * a, a, LATENT_EPS);
    }
    stream(a ? own->queries : own->normed, a ? a : s->d, at->q + a + r + w, line, b, query, 0, w_out);
#pragma omp barrier
#pragma omp for schedule(static)
    for (long row = 0; row < b; row++) {
        const float *made = at->q + row * line + a;
        long position = at->rows[row].position, cached = at->rows[row].slot * s->length + position;
        norm_row(made, layer->latent_norm, cache->keys + cached * r, r, LATENT_EPS);
        rotate_row(made + r, NULL, at->cosine + position * w, at->sine + position * w, cache->values + cached * w, w,
                   0);
    }
#pragma omp for schedule(static, 1)
    for (long bh = 0; bh < b * s->heads; bh++) {
        long row = bh / s->heads, h = bh % s->heads;
        latent_head(at, layer, cache, at->q + row * line + a + r + w + h * s->c, row, h, own);
    }
}

/* What a layer reads first. */
static piece_t first_read(const sizes_t *s, const layer_t *layer, int threads) {
    long n = s->rank ? s->rank + s->rotated : query_floats(s);
    const void *w = s->rank ? layer->latent : layer->w_qkv;
    return (piece_t){w, n, {0, s->d}, own_columns(n, threads), (int)s->half};
}

/* The stream plus a layer's attention. */
static void attention(const step_t *at, const layer_t *layer, const kept_t *cache, const own_t *own) {
    const sizes_t *s = at->sizes;
    long d = s->d, wide = mixed_floats(s);
    piece_t w_out = {layer->w_out, d, {0, wide}, own_columns(d, at->threads), (int)s->half};
    for (long row = 0; row < at->count; row++)
        norm_row(at->x + row * d, layer->attention_norm, own->normed + row * d, d, s->eps);
    if (s->rank) latent_attention(at, layer, cache, own, &w_out);
    else grouped_attention(at, layer, cache, own, &w_out);
    stream(at->mixed, wide, at->x, d, at->count, w_out, 1, NULL);
#pragma omp barrier
}
