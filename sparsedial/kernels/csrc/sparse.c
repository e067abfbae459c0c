/* The sparse feed-forward layer: y = x + the routed and the shared experts of norm(x). Twin: SparseFeedForward in
 * model/transformer.py.
 *
 * T tokens, D d_model, F width, E experts, K chosen, R = T*K routed rows, M width of the shared experts together.
 * Weights [in, out], w_in with the gate half first. */
#include "kernels.h"
#include "pieces.h"
#include "router.h"
#include "rows.h"

typedef struct {
    float *normed, *rms;                 /* [T, D], [T] */
    float *logits, *scores, *gates;      /* [T, E], [T, E], [T, K] */
    float *normaliser, *total, *picked;  /* [T] log-sum-exp of the logits, sum of the scores, of the chosen ones */
    float *kept;                         /* [B, E] f_i of the balance loss: an expert's share of choices, 1 when even */
    experts_t routed;
    float *h_shared;                     /* [T, 2M]; in the backward pass its gradient */
} sparse_t;

static long lay_sparse(sparse_t *s, float *base, long sequences, long tokens, long d, long f, long m, long e, long k) {
    long used = 0;
    s->normed = take(&base, &used, tokens * d);
    s->rms = take(&base, &used, tokens);
    s->logits = take(&base, &used, tokens * e);
    s->scores = take(&base, &used, tokens * e);
    s->gates = take(&base, &used, tokens * k);
    s->normaliser = take(&base, &used, tokens);
    s->total = take(&base, &used, tokens);
    s->picked = take(&base, &used, tokens);
    s->kept = take(&base, &used, sequences * e);
    long before = used;
    take(&base, &used, lay_experts(&s->routed, base ? base + before : NULL, tokens, f, e, k));
    s->h_shared = take(&base, &used, tokens * 2 * m);
    return used;
}

long sparse_saved(long sequences, long tokens, long d, long f, long m, long e, long k) {
    sparse_t s;
    return lay_sparse(&s, NULL, sequences, tokens, d, f, m, e, k);
}

/* Each token's choices and gates; `each_values` is scratch of [E] for each thread. */
static void choose_experts(const sparse_t *at, const float *bias, const int64_t *top_k, long tokens,
                           float *each_values, const routing_t *r) {
    long e = r->experts, k = r->top_k;
    float *values = own_part(each_values, whole(e, LANES));
#pragma omp for schedule(static)
    for (long t = 0; t < tokens; t++) {
        float *scores = at->scores + t * e;
        score_row(at->logits + t * e, scores, at->normaliser + t, at->total + t, r);
        choose_row(scores, bias, at->routed.chosen + t * k, at->gates + t * k, at->picked + t, values,
                   top_k ? at_most(k, top_k[t]) : k, r);
    }
}

/* What the losses of each sequence are made of goes to `shares` [B, 2], and to `kept`. */
static void weigh_choices(const sparse_t *at, float *shares, long sequences, long s, float *each_values,
                          const routing_t *r) {
    long e = r->experts, k = r->top_k;
    float *mean = own_part(each_values, whole(e, LANES));
#pragma omp for schedule(static)
    for (long b = 0; b < sequences; b++) {
        float *kept = at->kept + b * e, squares = 0;
        long visits = 0;
        memset(kept, 0, sizeof(float) * e);
        memset(mean, 0, sizeof(float) * e);
        for (long t = b * s; t < (b + 1) * s; t++) {
            const int32_t *chosen = at->routed.chosen + t * k;
            long own = visits_of(chosen, k);
            axpy(mean, at->scores + t * e, 1.0f / (at->total[t] * (float)s), e);
            for (long i = 0; i < own; i++) kept[chosen[i]] += 1.0f;
            visits += own;
            squares += at->normaliser[t] * at->normaliser[t];
        }
        float even = (float)e / (float)visits;
        for (long i = 0; i < e; i++) kept[i] *= even;
        shares[2 * b] = dot(kept, mean, e);
        shares[2 * b + 1] = squares;
    }
}

static long visits_in_all(const experts_t *s, long tokens, long k) {
    long visits = 0;
    for (long t = 0; t < tokens; t++) visits += visits_of(s->chosen + t * k, k);
    return visits;
}

/* The weighted balance loss and z-loss of all sequences together. */
static float loss_of(const float *shares, long sequences, long tokens, const routing_t *r) {
    double products = 0, squares = 0;
    for (long b = 0; b < sequences; b++) { products += shares[2 * b]; squares += shares[2 * b + 1]; }
    return (float)(r->balance * products / (double)sequences + r->z * squares / (double)tokens);
}

/* Memory that a way takes: all experts' weights packed, or each visit's output, and scratch of each thread. */
typedef struct { float *in, *out, *y_rows, *each, *each_a; long each_floats, a_floats; } way_memory_t;

/* Whether all of it could be had. */
static int memory_for(way_memory_t *has, way_t way, int threads, long piece, long tokens, long d, long f, long m, long e,
                      long k) {
    long w = e * f;
    piece_scratch_t sizes;
    has->a_floats = piece * (way == TOGETHER && w > m ? w : m);
    has->each_a = for_each_thread(threads, has->a_floats);
    if (way == BY_EXPERTS) {
        has->y_rows = floats(tokens * k * d);
        has->each = experts_for_each_thread(threads, d, f, 0);
        return ALL_THERE(has->each_a, has->y_rows, has->each);
    }
    has->each_floats = way == TOGETHER ? piece * 2 * w : lay_piece(&sizes, NULL, piece, d, f, e, k);
    has->each = for_each_thread(threads, has->each_floats);
    has->in = way == TOGETHER ? panels_for(d, 2 * w) : panels_for(e * d, 2 * f);
    has->out = panels_for(w, d);
    return ALL_THERE(has->each_a, has->each, has->in, has->out);
}

/* `top_k` [T]: how many experts a token visits; NULL: all K. `loss`: the routing's balance loss and z-loss together;
 * `load` [E] counts each expert's tokens. A backward pass may follow with `learning` alone: without it all experts are
 * computed together where that is cheaper. */
int sparse_forward(const float *x, const float *norm, const float *w_router, const float *bias, const void *w_in,
                   const void *w_out, const void *shared_in, const void *shared_out, const int64_t *top_k,
                   float *y, float *saved, float *loss, int64_t *load, long sequences, long s, long d, long f,
                   long m, long e, long k, long groups, long kept_groups, int sigmoid, int normalize, int ones,
                   float scaling, float balance, float z, float top_p, float eps, int learning, int half,
                   int threads) {
    long tokens = sequences * s, w = e * f;
    routing_t routing = {e, k, groups, kept_groups, sigmoid, normalize, ones, scaling, balance, z, top_p};
    int losing = learning || balance != 0.0f || z != 0.0f;
    way_t way = cheapest_way(tokens * e, tokens, f, e);
    int every = !losing && !load && visits_every(&routing, top_k) && way == TOGETHER;
    sparse_t at;
    lay_sparse(&at, saved, sequences, tokens, d, f, m, e, k);
    float *shares = floats(sequences * 2), *each_values = for_each_thread(threads, whole(e, LANES));
    float *router_panels = panels_for(d, e), *in_panels = panels_for(d, 2 * m), *out_panels = panels_for(m, d);
    long piece = piece_rows(tokens, threads);
    way_memory_t has = {0};
    int there = ALL_THERE(shares, each_values, router_panels, in_panels, out_panels);
    if (there)
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        shared_pack(w_router, e, 1, d, every ? 0 : e, router_panels);
        shared_weights(shared_in, half, d, 2 * m, in_panels);
        shared_weights(shared_out, half, m, m ? d : 0, out_panels);
#pragma omp for schedule(static)
        for (long from = 0; from < tokens; from += piece) {
            long rows = at_most(piece, tokens - from);
            for (long t = from; t < from + rows; t++)
                at.rms[t] = norm_row(x + t * d, norm, at.normed + t * d, d, eps);
            if (!every) by_panels(at.normed + from * d, d, 1, router_panels, d, at.logits + from * e, e, rows, e, d, 0);
        }
        if (!every) choose_experts(&at, bias, top_k, tokens, each_values, &routing);
        if (losing) weigh_choices(&at, shares, sequences, s, each_values, &routing);
#pragma omp single
        {
            if (!every) way = learning ? BY_EXPERTS : cheapest_way(visits_in_all(&at.routed, tokens, k), tokens, f, e);
            if (way == BY_EXPERTS || load) sort_rows(&at.routed, tokens * k, e);
            there = memory_for(&has, way, threads, piece, tokens, d, f, m, e, k);
        }
        if (there) {
            piece_scratch_t moved = {0};
            float *a = own_part(has.each_a, has.a_floats), *h = NULL;
            if (way == TOGETHER) {
                h = own_part(has.each, has.each_floats);
                pack_together(w_in, half, d, f, e, has.in);
                shared_weights(w_out, half, w, d, has.out);
            } else if (way == BY_PIECES) {
                lay_piece(&moved, own_part(has.each, has.each_floats), piece, d, f, e, k);
                pack_experts(w_in, w_out, half, d, f, e, has.in, has.out);
            } else {
                through_experts(&at.routed, at.normed, w_in, w_out, half, has.y_rows, has.each, d, f, e, k);
            }
#pragma omp for schedule(static)
            for (long from = 0; from < tokens; from += piece) {
                long rows = at_most(piece, tokens - from);
                memcpy(y + from * d, x + from * d, sizeof(float) * rows * d);
                if (way == TOGETHER)
                    through_all(&at.routed, at.normed, has.in, has.out, every ? NULL : at.gates, h, a, y, from, rows, d,
                                f, e, k);
                if (way == BY_PIECES)
                    through_piece(&at.routed, &moved, at.normed, has.in, has.out, at.gates, y, from, rows, d, f, e, k);
                for (long t = from; t < from + rows && way == BY_EXPERTS; t++)
                    combine(&at.routed, has.y_rows, at.gates, y + t * d, t, d, k);
                if (m)
                    swiglu_rows(at.normed + from * d, in_panels, out_panels, at.h_shared + from * 2 * m, a,
                                y + from * d, rows, d, m, NULL);
            }
        }
    }
    if (there) *loss = !losing ? 0.0f : loss_of(shares, sequences, tokens, &routing);
    if (there && load)
        for (long i = 0; i < e; i++) load[i] += at.routed.ends[i] - first_place(&at.routed, i);
    free(has.y_rows); free(has.in); free(has.out); free(has.each); free(has.each_a); free(shares); free(each_values);
    free(router_panels); free(in_panels); free(out_panels);
    return DONE_IF(there);
}

/* `dloss` is the gradient of the routing's losses. */
int sparse_backward(const float *dy, const float *dloss, const float *x, const float *norm, const float *w_router,
                    const float *w_in, const float *w_out, const float *shared_in, const float *shared_out,
                    float *saved, float *dx, float *dnorm, float *dw_router, float *dw_in, float *dw_out,
                    float *dshared_in, float *dshared_out, long sequences, long s, long d, long f, long m, long e,
                    long k, long groups, long kept_groups, int sigmoid, int normalize, int ones, float scaling,
                    float balance, float z, float top_p, int threads) {
    long tokens = sequences * s;
    routing_t routing = {e, k, groups, kept_groups, sigmoid, normalize, ones, scaling, balance, z, top_p};
    sparse_t at;
    lay_sparse(&at, saved, sequences, tokens, d, f, m, e, k);
    float *dx_rows = floats(tokens * k * d), *dgates = floats(tokens * k), *dlogits = floats(tokens * e);
    float *a_shared = floats(tokens * m), *parts = calloc((size_t)threads * d, sizeof(float));
    float *router_across = panels_for(e, d), *in_across = panels_for(2 * m, d), *out_across = panels_for(d, m);
    long piece = piece_rows(tokens, threads);
    float *each_expert = experts_for_each_thread(threads, d, f, 1), *each_da = for_each_thread(threads, piece * m);
    float *each_dnormed = for_each_thread(threads, piece * d);
    int there = ALL_THERE(dx_rows, dgates, dlogits, a_shared, parts, router_across, in_across, out_across, each_expert,
                          each_da, each_dnormed);
    if (there)
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        shared_pack(w_router, 1, e, e, d, router_across);
        shared_pack(shared_in, 1, 2 * m, 2 * m, m ? d : 0, in_across);
        shared_pack(shared_out, 1, d, d, m, out_across);
        back_through_experts(&at.routed, dy, at.normed, w_in, w_out, at.gates, dx_rows, dw_in, dw_out, dgates, each_expert,
                             d, f, e, k);
        float *dnormed = own_part(each_dnormed, piece * d), *da = own_part(each_da, piece * m);
        float *own_parts = parts + (long)thread() * d;
#pragma omp for schedule(static)
        for (long from = 0; from < tokens; from += piece) {
            long rows = at_most(piece, tokens - from);
            if (m)
                swiglu_rows_backward(dy + from * d, in_across, out_across, at.h_shared + from * 2 * m,
                                     a_shared + from * m, da, dnormed, rows, d, m);
            else
                memset(dnormed, 0, sizeof(float) * rows * d);
            for (long t = from; t < from + rows; t++) {
                route_row_backward(dgates + t * k, at.logits + t * e, at.scores + t * e, at.routed.chosen + t * k,
                                   at.gates + t * k, at.normaliser[t], at.total[t], at.picked[t], at.kept + t / s * e,
                                   dlogits + t * e, tokens, balance * *dloss, z * *dloss, &routing);
                combine(&at.routed, dx_rows, NULL, dnormed + (t - from) * d, t, d, k);
            }
            by_panels(dlogits + from * e, e, 1, router_across, e, dnormed, d, rows, d, e, 1);
            for (long i = 0; i < rows; i++) {
                long t = from + i;
                norm_row_backward(dnormed + i * d, x + t * d, norm, at.rms[t], dy + t * d, dx + t * d, own_parts, d);
            }
        }
        shared_product(at.normed, 1, d, dlogits, e, 1, dw_router, d, e, tokens, threads);
        if (m) {
            shared_product(at.normed, 1, d, at.h_shared, 2 * m, 1, dshared_in, d, 2 * m, tokens, threads);
            shared_product(a_shared, 1, m, dy, d, 1, dshared_out, m, d, tokens, threads);
        }
    }
    if (there) gather_columns(dnorm, parts, threads, d, d);
    free(dx_rows); free(dgates); free(dlogits); free(a_shared); free(parts);
    free(router_across); free(in_across); free(out_across); free(each_expert); free(each_da); free(each_dnormed);
    return DONE_IF(there);
}
