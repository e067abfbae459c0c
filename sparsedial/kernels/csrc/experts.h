/* Routed rows through their experts, in the order of experts. To be called inside a parallel region.
 * T tokens, D d_model, F width, E experts, K chosen, R = T*K routed rows. Weights [in, out], the gate half first. */
#pragma once
#include "router.h"
#include "swiglu.h"
#include "weights.h"

typedef struct {
    int32_t *chosen; /* [T, K]; NO_EXPERT where a token visits fewer */
    int32_t *order;  /* [R] the row at a place; row r is choice r % K of token r / K */
    int32_t *place;  /* [R] the place of a row */
    int32_t *ends;   /* [E] where an expert's places end */
    float *h;        /* [R, 2F] by place; in the backward pass its gradient */
} experts_t;

static inline long lay_experts(experts_t *s, float *base, long tokens, long f, long e, long k) {
    long used = 0;
    s->chosen = (int32_t *)take(&base, &used, tokens * k);
    s->order = (int32_t *)take(&base, &used, tokens * k);
    s->place = (int32_t *)take(&base, &used, tokens * k);
    s->ends = (int32_t *)take(&base, &used, e);
    s->h = take(&base, &used, tokens * k * 2 * f);
    return used;
}

/* Rows grouped by expert, by a stable counting sort; a row without an expert has no place. */
static inline void sort_rows(const experts_t *s, long rows, long e) {
    memset(s->ends, 0, sizeof(int32_t) * e);
    for (long r = 0; r < rows; r++)
        if (s->chosen[r] != NO_EXPERT) s->ends[s->chosen[r]]++;
    int32_t total = 0;
    for (long i = 0; i < e; i++) { int32_t count = s->ends[i]; s->ends[i] = total; total += count; }
    for (long r = 0; r < rows; r++) {
        if (s->chosen[r] == NO_EXPERT) continue;
        int32_t at = s->ends[s->chosen[r]]++;
        s->order[at] = (int32_t)r;
        s->place[r] = at;
    }
}

static inline long first_place(const experts_t *s, long expert) { return expert ? s->ends[expert - 1] : 0; }

/* Scratch of a thread: rows of one expert and, for gradients, theirs; its packed matrices. */
typedef struct { float *x, *dy, *a, *da, *in, *out; } expert_scratch_t;

static inline long lay_expert(expert_scratch_t *s, float *base, long d, long f, int back) {
    long used = 0;
    s->x = take(&base, &used, ROWS * d + LANES);
    s->a = take(&base, &used, ROWS * f + LANES);
    s->dy = take(&base, &used, back ? ROWS * d + LANES : 0);
    s->da = take(&base, &used, back ? ROWS * f + LANES : 0);
    s->in = take(&base, &used, (back ? 2 * f * whole(d, TILE_N) : d * whole(2 * f, TILE_N)) + LANES);
    s->out = take(&base, &used, (back ? d * whole(f, TILE_N) : f * whole(d, TILE_N)) + LANES);
    return used;
}

static inline float *experts_for_each_thread(int threads, long d, long f, int back) {
    expert_scratch_t of_one;
    return for_each_thread(threads, lay_expert(&of_one, NULL, d, f, back));
}

static inline expert_scratch_t own_expert(float *of_all, long d, long f, int back) {
    expert_scratch_t of_one;
    lay_expert(&of_one, own_part(of_all, lay_expert(&of_one, NULL, d, f, back)), d, f, back);
    return of_one;
}

/* y_rows [R, D]: each row's expert's output, by place. */
static inline void through_experts(const experts_t *s, const float *x, const void *w_in, const void *w_out, int half,
                                   float *y_rows, float *each_expert, long d, long f, long e, long k) {
    expert_scratch_t use = own_expert(each_expert, d, f, 0);
    float *xe = use.x, *a = use.a, *in_panels = use.in, *out_panels = use.out;
#pragma omp for schedule(dynamic)
    for (long i = 0; i < e; i++) {
        if (s->ends[i] == first_place(s, i)) continue;
        pack_weights(weight_at(w_in, i * d * 2 * f, half), half, d, 2 * f, 2 * f, in_panels);
        pack_weights(weight_at(w_out, i * f * d, half), half, f, d, d, out_panels);
        for (long from = first_place(s, i); from < s->ends[i]; from += ROWS) {
            long rows = at_most(ROWS, s->ends[i] - from);
            float *h = s->h + from * 2 * f;
            for (long row = 0; row < rows; row++)
                memcpy(xe + row * d, x + s->order[from + row] / k * d, sizeof(float) * d);
            by_panels(xe, d, 1, in_panels, d, h, 2 * f, rows, 2 * f, d, 0);
            for (long row = 0; row < rows; row++) activate_row(h + row * 2 * f, a + row * f, f);
            by_panels(a, f, 1, out_panels, f, y_rows + from * d, d, rows, d, f, 0);
        }
    }
}

/* y += the sum of one token's experts' outputs, each times its gate where there are gates. */
static inline void combine(const experts_t *s, const float *y_rows, const float *gates, float *y, long token, long d,
                           long k) {
    long first = token * k, visits = visits_of(s->chosen + first, k);
    for (long row = first; row < first + visits; row++)
        axpy(y, y_rows + s->place[row] * d, gates ? gates[row] : 1.0f, d);
}

/* Gradients of the weights and the gates, and of each row's x by place. */
static inline void back_through_experts(const experts_t *s, const float *dy, const float *x, const float *w_in,
                                        const float *w_out, const float *gates, float *dx_rows, float *dw_in,
                                        float *dw_out, float *dgates, float *each_expert, long d, long f, long e,
                                        long k) {
    expert_scratch_t use = own_expert(each_expert, d, f, 1);
    float *xe = use.x, *dye = use.dy, *a = use.a, *da = use.da, *in_across = use.in, *out_across = use.out;
#pragma omp for schedule(dynamic)
    for (long i = 0; i < e; i++) {
        float *dwi = dw_in + i * d * 2 * f, *dwo = dw_out + i * f * d;
        long begin = first_place(s, i);
        if (s->ends[i] == begin) {
            memset(dwi, 0, sizeof(float) * d * 2 * f);
            memset(dwo, 0, sizeof(float) * f * d);
            continue;
        }
        pack_all(w_in + i * d * 2 * f, 1, 2 * f, 2 * f, d, 2 * f, in_across);
        pack_all(w_out + i * f * d, 1, d, d, f, d, out_across);
        for (long from = begin; from < s->ends[i]; from += ROWS) {
            long rows = at_most(ROWS, s->ends[i] - from);
            float *h = s->h + from * 2 * f;
            for (long row = 0; row < rows; row++) {
                long token = s->order[from + row] / k;
                memcpy(xe + row * d, x + token * d, sizeof(float) * d);
                memcpy(dye + row * d, dy + token * d, sizeof(float) * d);
            }
            by_panels(dye, d, 1, out_across, d, da, f, rows, f, d, 0);
            for (long row = 0; row < rows; row++) {
                long at = s->order[from + row];
                dgates[at] = activate_row_backward(h + row * 2 * f, da + row * f, gates[at], a + row * f, f);
            }
            product(a, 1, f, dye, d, 1, dwo, d, f, d, rows, from > begin);
            product(xe, 1, d, h, 2 * f, 1, dwi, 2 * f, d, 2 * f, rows, from > begin);
            by_panels(h, 2 * f, 1, in_across, 2 * f, dx_rows + from * d, d, rows, d, 2 * f, 0);
        }
    }
}
