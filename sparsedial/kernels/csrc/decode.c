/* One new token of each of some sequences through the whole model. Twin: Transformer.forward with a cache.
 *
 * Reading weights takes most of the time, so each is read once, by rows, in its order in memory. The threads share the
 * matrices of attention by columns and synchronise after each; of a feed-forward part each takes an equal piece, and
 * they synchronise once. B rows, each of another sequence, D d_model, V words. */
#include "decode_attention.h"
#include "decode_feed_forward.h"
#include "decode_gates.h"
#include "kernels.h"

#define AHEAD 2048 /* how many floats ahead the embedding is fetched */

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

/* Four words' logits of one sequence or two; several sums at once, since each waits for its own last product. */
static inline __attribute__((always_inline)) void four_dots(const float *x, const float *w, float *out, long d, long v,
                                                            const int sequences) {
    vec sums[2][4];
    for (int s = 0; s < sequences; s++)
        for (int word = 0; word < 4; word++) sums[s][word] = splat(0);
    long i = 0;
    for (; i + LANES <= d; i += LANES)
        for (int word = 0; word < 4; word++) {
            vec weights = load(w + word * d + i);
            IN_REGISTER(weights);
            for (int s = 0; s < sequences; s++) sums[s][word] += load(x + s * d + i) * weights;
        }
    for (int s = 0; s < sequences; s++)
        for (int word = 0; word < 4; word++) {
            float sum = sum_of(sums[s][word]);
            for (long rest = i; rest < d; rest++) sum += x[s * d + rest] * w[word * d + rest];
            out[s * v + word] = sum;
        }
}

/* Logits of the normed stream, by all threads. */
static void unembed(const float *normed, const float *unembedding, float *logits, long b, long d, long words) {
#pragma omp for schedule(static)
    for (long word = 0; word < words / 4; word++)
        for (long row = 0; row < b; row += 2) {
            const float *four = unembedding + 4 * word * d;
            long part = whole(4 * d * at_most(2, b - row) / b, LINE); /* of what is fetched ahead */
            fetch(four + whole(AHEAD, 4 * d) + row * 4 * d / b, part);
            if (row + 1 < b) four_dots(normed + row * d, four, logits + row * words + 4 * word, d, words, 2);
            else four_dots(normed + row * d, four, logits + row * words + 4 * word, d, words, 1);
        }
#pragma omp single
    for (long word = words / 4 * 4; word < words; word++)
        for (long row = 0; row < b; row++)
            logits[row * words + word] = dot(normed + row * d, unembedding + word * d, d);
}

/* The cache [L, slots, G, length, C], twice, or latents [L, slots, length, R] and rotated keys [L, slots, length, W],
 * receives the new positions. `top_k` [L, B]: how many experts a row visits, at most the layer's; NULL: as many as the
 * layer's. Cosines and sines of all positions [length, C or W]. Logits [B, words]. */
void decode(const struct decode_sizes *sizes, const struct decode_layer *layers, const struct decode_row *rows,
            const int64_t *top_k, long count, const float *embedding, const float *norm, const float *unembedding,
            const float *cosine, const float *sine, float *keys, float *values, float *logits, float *scratch,
            int threads) {
    const sizes_t *s = sizes;
    long d = s->d;
    most_t most = most_of(s, layers);
    step_t at = {.sizes = s, .rows = rows, .count = count, .cosine = cosine, .sine = sine, .threads = threads};
    lay_step(&at, scratch, s, &most, threads);
    for (long row = 0; row < count; row++) memcpy(at.x + row * d, embedding + rows[row].token * d, sizeof(float) * d);
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
        unembed(own.normed, unembedding, logits, count, d, s->words);
    }
}
