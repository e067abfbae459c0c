/* The router on one token: scores, choice, gates, and their gradient. Twin: route in model/router.py.
 * E experts, K chosen; `sigmoid` or softmax scores. With `ones` every chosen expert has the gate one: scores only
 * choose, and their gradient is as if they were the gates. */
#pragma once
#include "common.h"
#include <float.h>

#define NO_EXPERT (-1) /* marks choices that a token does not visit */

typedef struct {
    long experts, top_k, groups, kept_groups;
    int sigmoid, normalize, ones;
    float scaling, balance, z, top_p;
} routing_t;

/* Whether every token visits all experts with the gate one. */
static inline int visits_every(const routing_t *r, const int64_t *top_k) {
    return r->ones && r->top_k == r->experts && !top_k && r->top_p >= 1.0f && r->scaling == 1.0f;
}

/* Scores of one token's logits; their log-sum-exp, and the sum of the scores. */
static inline void score_row(const float *restrict logits, float *restrict scores, float *normaliser, float *total,
                             const routing_t *r) {
    long e = r->experts;
    float most = largest(logits, e);
    vec sums = splat(0.0f), all = splat(0.0f);
    for (long i = 0; i < e; i += LANES) {
        long count = at_most(LANES, e - i);
        vec in = count == LANES ? load(logits + i) : load_some(logits + i, count, -INFINITY);
        vec shifted = choose(first(count), vexp(in - most), splat(0.0f));
        vec s = r->sigmoid ? choose(first(count), 1.0f / (1.0f + vexp(-in)), splat(0.0f)) : shifted;
        sums += shifted;
        all += s;
        if (count == LANES) store(scores + i, s);
        else store_some(scores + i, s, count);
    }
    float sum = sum_of(sums);
    *normaliser = most + logf(sum);
    *total = r->sigmoid ? sum_of(all) : 1.0f;
    if (!r->sigmoid)
        for (long i = 0; i < e; i++) scores[i] /= sum;
}

/* Of two candidates per lane, takes the larger value, or the lower index where they are equal. */
#define BETTER(swap)                                                                     \
    {                                                                                    \
        vec other = swap(best);                                                          \
        ivec at_other = swap(at), more = (other > best) | ((other == best) & (at_other < at)); \
        best = choose(more, other, best);                                                \
        at = ichoose(more, at_other, at);                                                \
    }

/* Indices of the top_k largest of e values, largest first; of equal values the lower index first. `values` must be
 * filled up to whole vectors with minus infinity, which also overwrites the picked values. */
static inline void pick(float *values, int32_t *chosen, long e, long top_k) {
    for (long k = 0; k < top_k; k++) {
        vec best = load(values);
        ivec at = lane;
        for (long i = LANES; i < e; i += LANES) {
            vec v = load(values + i);
            ivec more = v > best;
            best = choose(more, v, best);
            at = ichoose(more, lane + (int32_t)i, at);
        }
        BETTER(HALVES) BETTER(PAIRS) BETTER(NEIGHBOURS)
        chosen[k] = at[0];
        values[at[0]] = -INFINITY;
    }
}

/* The same by counting how many values come before each: faster where many are picked. It leaves the values. */
static inline void rank(const float *values, int32_t *chosen, long e, long top_k) {
    for (long i = 0; i < e; i += LANES) {
        vec own = load(values + i);
        ivec before = {0}; /* counts down: a comparison that holds is -1 */
        for (long j = 0; j < i; j++) before += splat(values[j]) >= own;
        for (long j = i; j < at_most(e, i + LANES); j++) {
            vec other = splat(values[j]);
            before += (other > own) | ((other == own) & (lane > (int32_t)(j - i)));
        }
        for (long j = i + LANES; j < e; j++) before += splat(values[j]) > own;
        int32_t places[LANES];
        before = -before;
        memcpy(places, &before, sizeof places);
        for (long n = 0; n < at_most(LANES, e - i); n++)
            if (places[n] < top_k) chosen[places[n]] = (int32_t)(i + n);
    }
}

/* Whether that takes less time. Measured, LOG.md. */
static inline int ranks_faster(long e, long top_k) { return e * e < top_k * (3 * e + 480); }

/* Excludes experts outside the best groups. Groups rank by the sum of their two largest values with sigmoid scores, by
 * their largest with softmax. Source: DeepSeek-V3 (arXiv 2412.19437) and V2 (arXiv 2405.04434), section 2.1 of each. */
static inline void keep_groups(float *values, const routing_t *r) {
    long size = r->experts / r->groups;
    float best[r->groups];
    for (long g = 0; g < r->groups; g++) {
        float most = -INFINITY, next = -INFINITY;
        for (const float *v = values + g * size; v < values + (g + 1) * size; v++) {
            if (*v > most) { next = most; most = *v; }
            else if (*v > next) next = *v;
        }
        best[g] = r->sigmoid && size > 1 ? most + next : most;
    }
    for (long g = 0; g < r->groups; g++) {
        long ahead = 0;
        for (long o = 0; o < r->groups; o++) ahead += best[o] > best[g] || (best[o] == best[g] && o < g);
        if (ahead >= r->kept_groups)
            for (long i = 0; i < size; i++) values[g * size + i] = -INFINITY;
    }
}

/* Of k choices the fewest whose scores reach a share of their sum, in their order; returns their number, one at least.
 * Twin: within in model/router.py. */
static inline long keep_share(const float *scores, int32_t *chosen, long k, float share) {
    float total = 0;
    long count = 0;
    int stays[k];
    for (long i = 0; i < k; i++) total += scores[chosen[i]];
    for (long i = 0; i < k; i++) {
        float own = scores[chosen[i]], before = 0;
        for (long o = 0; o < k; o++) {
            float other = scores[chosen[o]];
            if (other > own || (other == own && o < i)) before += other;
        }
        stays[i] = before < share * total;
    }
    for (long i = 0; i < k; i++)
        if (stays[i]) chosen[count++] = chosen[i];
    return count ? count : 1; /* scores that are not finite compare as false */
}

/* From scores to the `k` best experts and their gates, or fewer by top-p; returns their number. `picked` becomes the
 * sum of the chosen scores. Other choices up to top_k become NO_EXPERT. */
static inline long choose_row(const float *scores, const float *bias, int32_t *chosen, float *gates, float *picked,
                              float *values, long k, const routing_t *r) {
    long e = r->experts;
    memcpy(values, scores, sizeof(float) * e);
    if (bias) axpy(values, bias, 1.0f, e);
    for (long i = 0; i < e; i++)
        values[i] = values[i] == values[i] ? values[i] : -FLT_MAX; /* with NaN an expert could be picked twice */
    for (long i = e; i < whole(e, LANES); i++) values[i] = -INFINITY;
    if (r->groups > 1) keep_groups(values, r);
    if (ranks_faster(e, k)) rank(values, chosen, e, k);
    else pick(values, chosen, e, k);
    if (r->top_p < 1.0f) k = keep_share(scores, chosen, k, r->top_p);
    float sum = 1e-20f;
    for (long i = 0; i < k; i++) sum += scores[chosen[i]];
    *picked = sum;
    float weight = r->normalize ? r->scaling / sum : r->scaling;
    for (long i = 0; i < k; i++) gates[i] = r->ones ? r->scaling : scores[chosen[i]] * weight;
    for (long i = k; i < r->top_k; i++) { chosen[i] = NO_EXPERT; gates[i] = 0.0f; }
    return k;
}

/* How many of its choices a token visits. */
static inline long visits_of(const int32_t *chosen, long top_k) {
    while (top_k > 0 && chosen[top_k - 1] == NO_EXPERT) top_k--;
    return top_k;
}

/* dlogits of one token of T. `kept` holds its sequence's f_i; `balance` and `z` are weights times the gradient. */
static inline void route_row_backward(const float *dgates, const float *restrict logits, const float *restrict scores,
                                      const int32_t *chosen, const float *gates, float normaliser, float total,
                                      float picked, const float *restrict kept, float *restrict dlogits, long tokens,
                                      float balance, float z, const routing_t *r) {
    long e = r->experts;
    float inverse = balance / (float)tokens / total, inner = dot(scores, kept, e) / total;
    for (long i = 0; i < e; i++) dlogits[i] = (kept[i] - inner) * inverse;
    float together = 0;
    long visits = visits_of(chosen, r->top_k);
    if (r->normalize)
        for (long k = 0; k < visits; k++) together += dgates[k] * gates[k];
    for (long k = 0; k < visits; k++) {
        float grad = dgates[k] * r->scaling - together;
        dlogits[chosen[k]] += r->normalize ? grad / picked : grad;
    }
    float pull = normaliser * 2.0f * z / (float)tokens;
    float mixed = r->sigmoid ? 0.0f : dot(dlogits, scores, e);
    for (long i = 0; i < e; i += LANES) {
        long count = at_most(LANES, e - i);
        int all = count == LANES;
        vec s = all ? load(scores + i) : load_some(scores + i, count, 0);
        vec out = all ? load(dlogits + i) : load_some(dlogits + i, count, 0);
        if (r->sigmoid) {
            vec in = all ? load(logits + i) : load_some(logits + i, count, 0);
            out = out * s * (1.0f - s) + vexp(in - normaliser) * pull;
        } else {
            out = s * (out - mixed) + s * pull;
        }
        if (all) store(dlogits + i, out);
        else store_some(dlogits + i, out, count);
    }
}
