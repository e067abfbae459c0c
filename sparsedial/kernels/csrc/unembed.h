/* Logits of a few normed rows, by all threads of a parallel region. The table is read once, in its order in memory.
 * Twin: functional.linear. B rows, D d_model, V words. */
#pragma once
#include "weights.h"

#define AHEAD 8192 /* how many bytes ahead the table is fetched */

/* Four words' logits of one row or two; several sums at once, since each waits for its own last product. */
static INLINE void four_dots(const float *x, const void *w, float *out, long d, long v, const int rows,
                             const int half) {
    vec sums[2][4];
    for (int s = 0; s < rows; s++)
        for (int word = 0; word < 4; word++) sums[s][word] = splat(0);
    long i = 0;
    for (; i + LANES <= d; i += LANES)
        for (int word = 0; word < 4; word++) {
            vec of_word = weights(w, word * d + i, LANES, half);
            IN_REGISTER(of_word);
            for (int s = 0; s < rows; s++) sums[s][word] += load(x + s * d + i) * of_word;
        }
    for (int s = 0; s < rows; s++)
        for (int word = 0; word < 4; word++) {
            float sum = sum_of(sums[s][word]);
            for (long rest = i; rest < d; rest++) sum += x[s * d + rest] * weights(w, word * d + rest, 1, half)[0];
            out[s * v + word] = sum;
        }
}

/* Of four words of one row or two. */
static INLINE void four_words(const float *x, const void *w, float *out, long d, long v, long rows, const int half) {
    if (rows == 2) four_dots(x, w, out, d, v, 2, half);
    else four_dots(x, w, out, d, v, 1, half);
}

static NOINLINE void four_of_floats(const float *x, const void *w, float *out, long d, long v, long rows) {
    four_words(x, w, out, d, v, rows, 0);
}

static NOINLINE void four_of_halves(const float *x, const void *w, float *out, long d, long v, long rows) {
    four_words(x, w, out, d, v, rows, 1);
}

static void unembed(const float *normed, const void *table, float *logits, long b, long d, long words, int half) {
    long four_bytes = 4 * d * weight_bytes(half);
#pragma omp for schedule(static)
    for (long word = 0; word < words / 4; word++)
        for (long row = 0; row < b; row += 2) {
            long rows = at_most(2, b - row);
            const char *four = (const char *)table + word * four_bytes;
            float *out = logits + row * words + 4 * word;
            fetch(four + whole(AHEAD, four_bytes) + row * four_bytes / b, four_bytes * rows / b);
            if (half) four_of_halves(normed + row * d, four, out, d, words, rows);
            else four_of_floats(normed + row * d, four, out, d, words, rows);
        }
#pragma omp single
    for (long word = words / 4 * 4; word < words; word++) {
        float wide[d];
        const float *of_word = as_floats(table, word * d, d, wide, half);
        for (long row = 0; row < b; row++) logits[row * words + word] = dot(normed + row * d, of_word, d);
    }
}
