/* The feed-forward part of one new position of some sequences. To be called by every thread of a parallel region.
 * Twins: DenseFeedForward and SparseFeedForward in model/transformer.py.
 *
 * The pairs of matrices that a layer needs (the visited experts and the shared ones, or a dense layer) form one line.
 * Every thread takes an equal piece of that line and sums its own outputs.
 * B rows, each of another sequence, D d_model, E experts, K chosen, F width of an expert or dense layer. */
#pragma once
#include "decode_attention.h"
#include "router.h"
#include "swiglu.h"

/* A row of one layer's experts: of which sequence, to which expert, with which gate. */
typedef struct { long sequence, expert; float gate; } visit_t;

/* Every sequence's choices, sorted by expert so that each expert is read once; returns their number. `top_k` [B] or
 * NULL, as in decode. */
static long route_all(const float *normed, const float *router, const float *bias, float *logits, visit_t *visits,
                      const int64_t *top_k, long b, long d, const routing_t *r) {
    long e = r->experts, wide = whole(e, LANES), k = r->top_k, count = 0;
    float scores[wide], values[wide], kept[wide], gates[k], normaliser, total, picked;
    int32_t chosen[k];
    memset(kept, 0, sizeof kept);
    stream(normed, d, logits, wide, b, (piece_t){router, e, {0, d}, {0, e}, 0}, 0, NULL);
    for (long row = 0; row < b; row++) {
        score_row(logits + row * wide, scores, &normaliser, &total, r);
        long own = top_k ? at_most(k, top_k[row]) : k;
        own = choose_row(scores, bias, chosen, gates, &picked, kept, values, own, r);
        for (long i = 0; i < own; i++) {
            long at = count++;
            for (; at > 0 && visits[at - 1].expert > chosen[i]; at--) visits[at] = visits[at - 1];
            visits[at] = (visit_t){row, chosen[i], gates[i]};
        }
    }
    return count;
}

/* A pair of feed-forward matrices (an expert, the shared ones, a dense layer) and its rows: `count` from `first`. */
typedef struct { const void *w_in, *w_down; long width, first, count; int half; } pair_t;

#define READING 6 /* cost of reading a weight, in rows multiplied by it; with 3 to 40 instead, threads wait as long */

static long cost_of_column(const pair_t *pair) { return READING + pair->count; }

static piece_t whole_in(const pair_t *pair, long d) {
    return (piece_t){pair->w_in, 2 * pair->width, {0, d}, {0, 2 * pair->width}, pair->half};
}

/* The columns of a pair that lie before a cost, in whole cache lines. */
static long columns_before(const pair_t *pair, long cost) {
    if (cost >= pair->width * cost_of_column(pair)) return pair->width;
    return cost <= 0 ? 0 : cost / cost_of_column(pair) / LINE * LINE;
}

/* Adds the outputs of a part of a pair's columns to `sums` [B, D]; `some` has room for two rows of D per sequence. */
static void through_pair(const pair_t *pair, range_t part, const visit_t *visits, const float *normed, float *h,
                         float *a, float *sums, float *some, long d, const piece_t *next) {
    long count = pair->count, f = pair->width, first = visits[0].sequence;
    int apart = visits[count - 1].sequence - first >= count; /* its rows do not lie side by side */
    const float *in = normed + first * d;
    float *out = sums + first * d;
    if (apart) {
        for (long row = 0; row < count; row++)
            memcpy(some + row * d, normed + visits[row].sequence * d, sizeof(float) * d);
        in = some;
        out = some + count * d;
    }
    piece_t down = {pair->w_down, d, part, {0, d}, pair->half};
    if (part.to - part.from == f) {
        stream(in, d, h, 2 * f, count, whole_in(pair, d), 0, &down);
    } else {
        piece_t gate = {pair->w_in, 2 * f, {0, d}, part, pair->half}, times = gate;
        times.columns = (range_t){part.from + f, part.to + f};
        stream(in, d, h, 2 * f, count, gate, 0, &times);
        stream(in, d, h, 2 * f, count, times, 0, &down);
    }
    for (long row = 0; row < count; row++)
        for (long j = part.from; j < part.to; j += LANES) {
            long lanes = at_most(LANES, part.to - j);
            vec gate = load_some(h + row * 2 * f + j, lanes, 0), times = load_some(h + row * 2 * f + f + j, lanes, 0);
            store_some(a + row * f + j, silu_times(gate, times) * visits[row].gate, lanes);
        }
    stream(a, f, out, d, count, down, !apart, next);
    for (long row = 0; apart && row < count; row++) axpy(sums + visits[row].sequence * d, out + row * d, 1.0f, d);
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
        long routed = route_all(own->normed, layer->router, layer->bias, own->logits, visits, top_k, b, d, &routing);
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

/* The stream plus a layer's feed-forward part. `following` is what is read next. */
static void feed_forward(const step_t *at, const layer_t *layer, const int64_t *top_k, const own_t *own,
                         piece_t following) {
    const sizes_t *s = at->sizes;
    long b = at->count, d = s->d, wide = layer->width > layer->shared_width ? layer->width : layer->shared_width;
    long rows = b * (layer->top_k + 1); /* of the chosen experts, and of the shared ones or a dense layer */
    visit_t visits[rows];
    pair_t pairs[rows];
    for (long row = 0; row < b; row++)
        norm_row(at->x + row * d, layer->feed_forward_norm, own->normed + row * d, d, s->eps);
    long count = line_up(at, layer, top_k, own, visits, pairs), total = 0;
    for (long i = 0; i < count; i++) total += pairs[i].width * cost_of_column(&pairs[i]);
    long from = total * thread() / at->threads, to = total * (thread() + 1) / at->threads;
    memset(own->sums, 0, sizeof(float) * b * d);
    for (const pair_t *pair = pairs; pair < pairs + count; pair++) {
        range_t part = {columns_before(pair, from), columns_before(pair, to)};
        from -= pair->width * cost_of_column(pair);
        to -= pair->width * cost_of_column(pair);
        if (part.from >= part.to) continue;
        piece_t after = to > 0 && pair + 1 < pairs + count ? whole_in(pair + 1, d) : following;
        through_pair(pair, part, visits + pair->first, own->normed, at->h + pair->first * 2 * wide,
                     at->a + pair->first * wide, own->sums, own->some, d, &after);
    }
#pragma omp barrier
    add_sums(at);
#pragma omp barrier
}
