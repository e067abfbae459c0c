/* The feed-forward part of one new position of some sequences. To be called by every thread of a parallel region.
 * Twins: DenseFeedForward and SparseFeedForward in model/transformer.py.
 *
 * The pairs of matrices that a layer needs (the visited experts and the shared ones, or a dense layer) form one line.
 * Every thread takes an equal piece of that line and sums its own outputs.
 * B rows, each of another sequence, D d_model, E experts, K chosen, F width of an expert or dense layer. */
#pragma once
#include "decode_attention.h"
#include "decode_narrow.h"
#include "router.h"
#include "swiglu.h"

/* A row of one layer's experts: of which sequence, to which expert, with which gate. */
typedef struct { long sequence, expert; float gate; } visit_t;

/* Every sequence's choices, sorted by expert so that each expert is read once; returns their number. `top_k` [B] or
 * NULL, as in decode. */
static long route_all(const float *normed, const float *router, const float *bias, float *logits, visit_t *visits,
                      const int64_t *top_k, long b, long d, const routing_t *r) {
    long e = r->experts, wide = whole(e, LANES), k = r->top_k, count = 0, places[e];
    float scores[wide], values[wide], gates[b * k], normaliser, total, picked;
    int32_t chosen[b * k];
    memset(places, 0, sizeof places);
    stream(normed, d, logits, wide, b, (piece_t){router, e, {0, d}, {0, e}, 0}, 0, NULL);
    for (long row = 0; row < b; row++) {
        score_row(logits + row * wide, scores, &normaliser, &total, r);
        long own = top_k ? at_most(k, top_k[row]) : k;
        own = choose_row(scores, bias, chosen + row * k, gates + row * k, &picked, values, own, r);
        for (long i = 0; i < own; i++) places[chosen[row * k + i]]++;
    }
    for (long i = 0, visited; i < e; i++, count += visited) {
        visited = places[i];
        places[i] = count;
    }
    for (long at = 0; at < b * k; at++)
        if (chosen[at] != NO_EXPERT) visits[places[chosen[at]]++] = (visit_t){at / k, chosen[at], gates[at]};
    return count;
}

/* The same where every sequence visits all experts, which needs no router. */
static long visit_all(visit_t *visits, long b, long e) {
    for (long at = 0; at < b * e; at++) visits[at] = (visit_t){at % b, at / b, 1.0f};
    return b * e;
}

#define READING 6 /* cost of reading a weight, in rows multiplied by it; with 3 to 40 instead, threads wait as long */

static long cost_of_column(const pair_t *pair) { return READING + pair->count; }
static long cost_of(const pair_t *pair) { return pair->width * cost_of_column(pair); }

static piece_t whole_in(const pair_t *pair, long d) {
    return (piece_t){pair->w_in, 2 * pair->width, {0, d}, {0, 2 * pair->width}, pair->half};
}

/* The columns of a pair that lie before a cost, in whole cache lines. */
static long columns_before(const pair_t *pair, long cost) {
    if (cost >= cost_of(pair)) return pair->width;
    return cost <= 0 ? 0 : cost / cost_of_column(pair) / LINE * LINE;
}

static INLINE void activate_times(const float *h, float *a, long f, float gate, long j, const long lanes) {
    store_part(a + j, silu_times(part(h + j, lanes), part(h + f + j, lanes)) * gate, lanes);
}

/* Where a pair's rows lie, in and out: copies, in `some`, where they do not lie side by side. */
typedef struct { const float *in; float *out; int apart; } rows_t;

static INLINE rows_t rows_of_pair(const visit_t *visits, long count, const float *normed, float *sums, float *some,
                                  long d) {
    long first = visits[0].sequence;
    if (visits[count - 1].sequence - first < count) return (rows_t){normed + first * d, sums + first * d, 0};
    for (long row = 0; row < count; row++)
        memcpy(some + row * d, normed + visits[row].sequence * d, sizeof(float) * d);
    return (rows_t){some, some + count * d, 1};
}

static INLINE void activate_rows(const visit_t *visits, long count, const float *h, float *a, long f, range_t part) {
    for (long row = 0; row < count; row++) {
        const float *made = h + row * 2 * f;
        float gate = visits[row].gate;
        long j = part.from;
        for (; j + LANES <= part.to; j += LANES) activate_times(made, a + row * f, f, gate, j, LANES);
        if (j < part.to) activate_times(made, a + row * f, f, gate, j, part.to - j);
    }
}

static INLINE void add_apart(const visit_t *visits, long count, const rows_t *rows, float *sums, long d) {
    for (long row = 0; rows->apart && row < count; row++)
        axpy(sums + visits[row].sequence * d, rows->out + row * d, 1.0f, d);
}

/* Adds the outputs of a part of a pair's columns to `sums` [B, D]; `some` has room for two rows of D per sequence. */
static void through_pair(const pair_t *pair, range_t part, const visit_t *visits, const float *normed, float *h,
                         float *a, float *sums, float *some, long d, const piece_t *next) {
    long count = pair->count, f = pair->width;
    rows_t rows = rows_of_pair(visits, count, normed, sums, some, d);
    piece_t down = {pair->w_down, d, part, {0, d}, pair->half};
    if (part.to - part.from == f) {
        stream(rows.in, d, h, 2 * f, count, whole_in(pair, d), 0, &down);
    } else {
        piece_t gate = {pair->w_in, 2 * f, {0, d}, part, pair->half}, times = gate;
        times.columns = (range_t){part.from + f, part.to + f};
        stream(rows.in, d, h, 2 * f, count, gate, 0, &times);
        stream(rows.in, d, h, 2 * f, count, times, 0, &down);
    }
    activate_rows(visits, count, h, a, f, part);
    stream(a, f, rows.out, d, count, down, !rows.apart, next);
    add_apart(visits, count, &rows, sums, d);
}

/* The same of a whole narrow pair, in its line. Not inlined: the loops of wide ones became slower beside it. */
static NOINLINE void through_narrow_pair(const pair_t *pair, const visit_t *visits, const float *normed, float *h,
                                         float *a, float *sums, float *some, long d, line_t *line) {
    long count = pair->count, f = pair->width;
    rows_t rows = rows_of_pair(visits, count, normed, sums, some, d);
    piece_t down = {pair->w_down, d, {0, f}, {0, d}, pair->half};
    through_narrow(rows.in, d, h, 2 * f, count, whole_in(pair, d), 0, line);
    activate_rows(visits, count, h, a, f, (range_t){0, f});
    through_narrow(a, f, rows.out, d, count, down, !rows.apart, line);
    add_apart(visits, count, &rows, sums, d);
}

/* The pairs of matrices that a layer's rows need, and those rows in `visits`; returns the number of pairs. */
static long line_up(const step_t *at, const layer_t *layer, const int64_t *top_k, const own_t *own, visit_t *visits,
                    pair_t *pairs) {
    const sizes_t *s = at->sizes;
    long b = at->count, d = s->d, f = layer->width, used = 0, count = 0;
    int half = (int)s->half;
    if (layer->router) {
        routing_t routing = {layer->experts, layer->top_k, s->groups, s->kept_groups, s->sigmoid, s->normalize,
                             s->ones, s->scaling, 0, 0, s->top_p};
        long routed = visits_every(&routing, top_k) ? visit_all(visits, b, layer->experts)
                                                    : route_all(own->normed, layer->router, layer->bias, own->logits,
                                                                visits, top_k, b, d, &routing);
        for (; used < routed; used++) {
            long expert = visits[used].expert;
            if (!used || expert != visits[used - 1].expert)
                pairs[count++] = (pair_t){weight_at(layer->w_in, expert * d * 2 * f, half),
                                          weight_at(layer->w_down, expert * f * d, half), f, used, 0, half};
            pairs[count - 1].count++;
        }
        if (layer->shared_width)
            pairs[count++] = (pair_t){layer->shared_in, layer->shared_down, layer->shared_width, used, b, half};
    } else {
        pairs[count++] = (pair_t){layer->w_in, layer->w_down, f, used, b, half};
    }
    for (long row = 0; row < b; row++) {
        const float *w = layer->shared_gate;
        float gate = w ? 1.0f / (1.0f + expf(-dot(own->normed + row * d, w, d))) : 1.0f;
        visits[used + row] = (visit_t){row, 0, gate};
    }
    return count;
}

/* Adds the sums of all threads to the stream; each thread does its own columns. */
static void add_sums(const step_t *at) {
    long d = at->sizes->d;
    range_t columns = own_columns(d, at->threads);
    for (int t = 0; t < at->threads; t++)
        for (long row = 0; row < at->count; row++) {
            long from = row * d + columns.from;
            axpy(at->x + from, at->owned + t * at->own_floats + from, 1.0f, columns.to - columns.from);
        }
}

/* The narrow pairs that this thread takes whole, from `pair` on up to a cost, as a line. */
static line_t narrow_line(const pair_t *pair, const pair_t *end, long cost, long d, const piece_t *following) {
    const pair_t *last = pair;
    for (; last < end && is_narrow(last, d) && cost >= cost_of(last); last++) cost -= cost_of(last);
    piece_t after = last < end && cost > 0 ? whole_in(last, d) : *following;
    return begin_line(pair, last, d, &after);
}

/* The stream plus a layer's feed-forward part. `following` is what is read next. Inlined, a step takes 5 % longer. */
static NOINLINE void feed_forward(const step_t *at, const layer_t *layer, const int64_t *top_k, const own_t *own,
                                  piece_t following) {
    const sizes_t *s = at->sizes;
    long b = at->count, d = s->d, wide = layer->width > layer->shared_width ? layer->width : layer->shared_width;
    long rows = b * (layer->top_k + 1); /* of the chosen experts, and of the shared ones or a dense layer */
    visit_t visits[rows];
    pair_t pairs[rows];
    for (long row = 0; row < b; row++)
        norm_row(at->x + row * d, layer->feed_forward_norm, own->normed + row * d, d, s->eps);
    long count = line_up(at, layer, top_k, own, visits, pairs), total = 0;
    for (long i = 0; i < count; i++) total += cost_of(&pairs[i]);
    long from = total * thread() / at->threads, to = total * (thread() + 1) / at->threads;
    const pair_t *end = pairs + count;
    line_t line = {.end = pairs};
    memset(own->sums, 0, sizeof(float) * b * d);
    for (const pair_t *pair = pairs; pair < end; from -= cost_of(pair), to -= cost_of(pair), pair++) {
        range_t part = {columns_before(pair, from), columns_before(pair, to)};
        if (part.from >= part.to) continue;
        int whole_pair = part.to - part.from == pair->width;
        if (pair >= line.end && whole_pair && is_narrow(pair, d)) line = narrow_line(pair, end, to, d, &following);
        const visit_t *own_visits = visits + pair->first;
        if (pair < line.end) {
            through_narrow_pair(pair, own_visits, own->normed, at->h + line.first * 2 * wide, at->a + line.first * wide,
                                own->sums, own->some, d, &line);
            continue;
        }
        piece_t after = to > cost_of(pair) && pair + 1 < end ? whole_in(pair + 1, d) : following;
        through_pair(pair, part, own_visits, own->normed, at->h + pair->first * 2 * wide, at->a + pair->first * wide,
                     own->sums, own->some, d, &after);
    }
#pragma omp barrier
    add_sums(at);
#pragma omp barrier
}
