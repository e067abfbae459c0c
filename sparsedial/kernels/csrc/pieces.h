/* Experts for many tokens that visit some of them, by pieces of tokens: a piece's rows go to their experts and back
 * within the second cache, and no visit's output is kept, which would take fresh pages of memory. To be called inside a
 * parallel region, by each thread with a piece of its own. T tokens, D d_model, F width, E experts, K chosen. Twin: as
 * experts.h, reference.reference. */
#pragma once
#include "together.h"

#define MOVED_AT_ONCE 48 /* rows: whole tiles */

static inline long expert_panels(long k, long n) { return k * whole(n, TILE_N); }

/* Packs each expert's matrices. */
static inline void pack_experts(const void *w_in, const void *w_out, int half, long d, long f, long e,
                                float *in_panels, float *out_panels) {
#pragma omp for schedule(static)
    for (long i = 0; i < e; i++) {
        pack_weights(weight_at(w_in, i * d * 2 * f, half), half, d, 2 * f, 2 * f, in_panels + i * expert_panels(d, 2 * f));
        pack_weights(weight_at(w_out, i * f * d, half), half, f, d, d, out_panels + i * expert_panels(f, d));
    }
}

/* Scratch of a thread: rows of a piece by expert, and of one expert at once what goes in and comes out. */
typedef struct { int32_t *ends, *rows; float *in, *h, *a, *out; } piece_scratch_t;

static inline long lay_piece(piece_scratch_t *s, float *base, long rows, long d, long f, long e, long k) {
    long used = 0;
    s->ends = (int32_t *)take(&base, &used, e);
    s->rows = (int32_t *)take(&base, &used, rows * k);
    s->in = take(&base, &used, MOVED_AT_ONCE * d);
    s->h = take(&base, &used, MOVED_AT_ONCE * 2 * f);
    s->a = take(&base, &used, MOVED_AT_ONCE * f);
    s->out = take(&base, &used, MOVED_AT_ONCE * d);
    return used;
}

/* Which rows `token * K + choice` of a piece go to each expert, in the order of experts. */
static inline void rows_by_expert(const experts_t *s, const piece_scratch_t *at, long from, long to, long e, long k) {
    int32_t total = 0;
    memset(at->ends, 0, sizeof(int32_t) * e);
    for (long row = from * k; row < to * k; row++)
        if (s->chosen[row] != NO_EXPERT) at->ends[s->chosen[row]]++;
    for (long i = 0; i < e; i++) { int32_t count = at->ends[i]; at->ends[i] = total; total += count; }
    for (long row = from * k; row < to * k; row++)
        if (s->chosen[row] != NO_EXPERT) at->rows[at->ends[s->chosen[row]]++] = (int32_t)row;
}

/* y += what the visited experts write for some tokens from `from` on, with packed weights. */
static inline void through_piece(const experts_t *s, const piece_scratch_t *at, const float *x, const float *in_panels,
                                 const float *out_panels, const float *gates, float *y, long from, long rows, long d,
                                 long f, long e, long k) {
    rows_by_expert(s, at, from, from + rows, e, k);
    for (long i = 0, begin = 0; i < e; i++)
        for (long some; begin < at->ends[i]; begin += some) {
            const int32_t *moved = at->rows + begin;
            some = at_most(MOVED_AT_ONCE, at->ends[i] - begin);
            for (long n = 0; n < some; n++) memcpy(at->in + n * d, x + moved[n] / k * d, sizeof(float) * d);
            by_panels(at->in, d, 1, in_panels + i * expert_panels(d, 2 * f), d, at->h, 2 * f, some, 2 * f, d, 0);
            for (long n = 0; n < some; n++) activate_row(at->h + n * 2 * f, at->a + n * f, f);
            by_panels(at->a, f, 1, out_panels + i * expert_panels(f, d), f, at->out, d, some, d, f, 0);
            for (long n = 0; n < some; n++) axpy(y + moved[n] / k * d, at->out + n * d, gates[moved[n]], d);
        }
}
