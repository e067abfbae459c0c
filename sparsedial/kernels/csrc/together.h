/* All experts of a layer as one dense layer, for tokens that visit most of them: what an expert writes is times its gate,
 * 0 where a token does not visit it. No row is moved, and products are wide. To be called inside a parallel region.
 * T tokens, D d_model, F width of an expert, E experts, K chosen, W = E*F. Twin: as experts.h, reference.reference. */
#pragma once
#include "experts.h"

/* How rows of a layer without a gradient go through its experts. */
typedef enum { BY_EXPERTS, BY_PIECES, TOGETHER } way_t;

/* As multiplying a row by so many neurons takes: moving it to an expert and back, through memory or within a piece. As
 * multiplying so many rows by all neurons takes: packing all weights at once, or each expert's before any is used, over
 * packing them when their turn comes. Measured, LOG.md. */
#define MOVED 12
#define MOVED_NEAR 7
#define PACKED 16
#define PACKED_EACH 24

/* The cheapest way for so many visits in all. Rows are moved by pieces only where there are so many (visits above 4EF)
 * that packed weights take less memory than each visit's output. */
static inline way_t cheapest_way(long visits, long tokens, long f, long e) {
    long together = (tokens + PACKED) * e * f, by_experts = visits * (f + MOVED);
    long by_pieces = visits * (f + MOVED_NEAR) + PACKED_EACH * e * f;
    if (by_pieces < together && by_pieces < by_experts) return BY_PIECES;
    return together <= by_experts ? TOGETHER : BY_EXPERTS;
}

/* Packs all experts' gates side by side, then their ups, as one matrix of 2W columns. */
static inline void pack_together(const void *w_in, int half, long d, long f, long e, float *panels) {
    long w = e * f;
#pragma omp for schedule(static)
    for (long n0 = 0; n0 < 2 * w; n0 += TILE_N) {
        float *panel = panels + n0 * d;
        long columns = at_most(TILE_N, 2 * w - n0);
        for (long j = 0, some; j < columns; j += some) {
            long up = (n0 + j) / w, n = (n0 + j) % w, expert = n / f, from = n % f;
            some = at_most(f - from, columns - j);
            long first = expert * d * 2 * f + up * f + from;
            const float *in = weight_at(w_in, first, half);
            for (long row = 0; row < d; row++)
                if (half) copy_weights(panel + row * TILE_N + j, w_in, first + row * 2 * f, some, 1);
                else for (long i = 0; i < some; i++) panel[row * TILE_N + j + i] = in[row * 2 * f + i];
        }
        for (long row = 0; row < d && columns < TILE_N; row++)
            memset(panel + row * TILE_N + columns, 0, sizeof(float) * (TILE_N - columns));
    }
}

/* A token's activations [W] times its gates, 0 of experts that it does not visit. */
static inline void weigh(const experts_t *s, const float *gates, float *a, long token, long f, long e, long k) {
    const int32_t *chosen = s->chosen + token * k;
    float gate_of[e];
    memset(gate_of, 0, sizeof gate_of);
    for (long i = 0, visits = visits_of(chosen, k); i < visits; i++) gate_of[chosen[i]] = gates[token * k + i];
    for (long i = 0; i < e; i++)
        for (long j = i * f; j < (i + 1) * f; j++) a[j] = gate_of[i] == 0.0f ? 0.0f : a[j] * gate_of[i];
}

/* y += what all experts write for some rows from the token `from` on, with packed weights; without gates all of them are
 * visited and weigh one. `h` and `a` are scratch of 2W and of W a row. */
static inline void through_all(const experts_t *s, const float *x, const float *in_panels, const float *out_panels,
                               const float *gates, float *h, float *a, float *y, long from, long rows, long d, long f,
                               long e, long k) {
    long w = e * f;
    by_panels(x + from * d, d, 1, in_panels, d, h, 2 * w, rows, 2 * w, d, 0);
    for (long i = 0; i < rows; i++) {
        activate_row(h + i * 2 * w, a + i * w, w);
        if (gates) weigh(s, gates, a + i * w, from + i, f, e, k);
    }
    by_panels(a, w, 1, out_panels, w, y + from * d, d, rows, d, w, 1);
}
