/* One new token of each of some sequences through the whole model. Twin: Transformer.forward with a cache.
 *
 * Reading weights takes most of the time, so each is read once, by rows, in its order in memory. The threads share the
 * matrices of attention by columns and synchronise after each; of a feed-forward part each takes an equal piece, and
 * they synchronise once. B rows, each of another sequence, D d_model, V words. */
#include "decode_attention.h"
#include "decode_feed_forward.h"
#include "decode_gates.h"
#include "kernels.h"
#include "unembed.h"

/* The most that any layer needs. */
typedef struct { long experts, rows_floats, neurons; } most_t;

static most_t most_of(const sizes_t *s, const layer_t *layers) {
    most_t most = {0, 0, 0};
    for (const layer_t *layer = layers; layer < layers + s->layers; layer++) {
        long width = layer->width > layer->shared_width ? layer->width : layer->shared_width;
        long rows_floats = s->slots * (layer->top_k + 1) * width;
        if (layer->experts > most.experts) most.experts = layer->experts;
        if (rows_floats > most.rows_floats) most.rows_floats = rows_floats;
        if (layer->up_rows && layer->width > most.neurons) most.neurons = layer->width;
    }
    return most;
}

static long lay_own(own_t *own, float *base, const sizes_t *s, const most_t *most) {
    long used = 0, b = s->slots;
    own->sums = take(&base, &used, b * s->d);
    own->normed = take(&base, &used, b * s->d);
    own->some = take(&base, &used, 2 * b * s->d);
    own->logits = take(&base, &used, b * whole(most->experts, LANES));
    own->scores = take(&base, &used, whole(s->length, LANES));
    own->queries = take(&base, &used, b * s->query_rank);
    own->head = take(&base, &used, 2 * s->rank + s->rotated);
    return used;
}

static long lay_step(step_t *at, float *base, const sizes_t *s, const most_t *most, int threads) {
    long used = 0, b = s->slots;
    own_t own;
    at->x = take(&base, &used, b * s->d);
    at->q = take(&base, &used, b * query_floats(s));
    at->mixed = take(&base, &used, b * mixed_floats(s));
    at->h = take(&base, &used, 2 * most->rows_floats);
    at->a = take(&base, &used, most->rows_floats);
    at->open = (int32_t *)take(&base, &used, most->neurons);
    at->opened = (int32_t *)take(&base, &used, most->neurons ? threads * LINE : 0);
    at->own_floats = lay_own(&own, NULL, s, most);
    at->owned = take(&base, &used, threads * at->own_floats);
    return used;
}

long decode_scratch(const struct decode_sizes *sizes, const struct decode_layer *layers, int threads) {
    most_t most = most_of(sizes, layers);
    step_t at;
    return lay_step(&at, NULL, sizes, &most, threads);
}

/* The cache [L, slots, G, length, C], twice, or latents [L, slots, length, R] and rotated keys [L, slots, length, W],
 * receives the new positions. `top_k` [L, B]: how many experts a row visits, at most the layer's; NULL: as many as the
 * layer's. Cosines and sines of all positions [length, C or W]. Logits [B, words]. */
void decode(const struct decode_sizes *sizes, const struct decode_layer *layers, const struct decode_row *rows,
            const int64_t *top_k, long count, const void *embedding, const float *norm, const void *unembedding,
            const float *cosine, const float *sine, float *keys, float *values, float *logits, float *scratch,
            int threads) {
    const sizes_t *s = sizes;
    long d = s->d;
    most_t most = most_of(s, layers);
    step_t at = {.sizes = s, .rows = rows, .count = count, .cosine = cosine, .sine = sine, .threads = threads};
    lay_step(&at, scratch, s, &most, threads);
    for (long row = 0; row < count; row++)
        copy_weights(at.x + row * d, embedding, rows[row].token * d, d, (int)s->half);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        own_t own;
        lay_own(&own, at.owned + thread() * at.own_floats, s, &most);
        for (long number = 0; number < s->layers; number++) {
            const layer_t *layer = layers + number;
            kept_t cache = kept_of(s, number, keys, values);
            attention(&at, layer, &cache, &own);
            const int64_t *own_k = top_k ? top_k + number * count : NULL;
            piece_t following = number + 1 < s->layers ? first_read(s, layer + 1, threads) : (piece_t){0};
            if (layer->up_rows) gated_feed_forward(&at, layer, &own, &following);
            else feed_forward(&at, layer, own_k, &own, following);
        }
        for (long row = 0; row < count; row++) norm_row(at.x + row * d, norm, own.normed + row * d, d, s->eps);
        unembed(own.normed, unembedding, logits, count, d, s->words, (int)s->half);
    }
}
