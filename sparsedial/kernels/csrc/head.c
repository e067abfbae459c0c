/* The model's end: norm, un-embedding and cross-entropy, by pieces of tokens to hold only a piece's logits in memory.
 * Twin: functional.cross_entropy(rms_norm(x) @ table.T). T tokens, D d_model, V words. */
#include "kernels.h"
#include "products.h"
#include "rows.h"

#define MOST_LOGITS (1 << 20) /* held at once by each thread */

/* The loss of a row of logits; with `gradient` the row becomes its gradient times `scale`. */
static float entropy_row(float *row, long v, long target, int gradient, float scale) {
    float shift = largest(row, v), right = row[target], sum;
    if (!gradient) {
        vec total = splat(0.0f);
        long i = 0;
        for (; i + LANES <= v; i += LANES) total += vexp(load(row + i) - shift);
        if (i < v) total += choose(first(v - i), vexp(load_some(row + i, v - i, 0) - shift), splat(0.0f));
        return shift + logf(sum_of(total)) - right;
    }
    float tail[LANES]; /* what follows the row's end belongs to the next one */
    memcpy(tail, row + v, sizeof tail);
    sum = exponentials(row, v, 1.0f, shift);
    memcpy(row + v, tail, sizeof tail);
    float times = scale / sum;
    for (long i = 0; i < v; i++) row[i] *= times;
    row[target] -= scale;
    return shift + logf(sum) - right;
}

static double summed(const float *weight, long tokens) {
    double sum = 0;
    for (long t = 0; t < tokens; t++) sum += weight[t];
    return sum;
}

/* `loss`: the mean over tokens, nats, each counted `weight` times unless that is NULL; its gradients too if dx is not
 * NULL. `each`: the loss of every token, unless NULL. Returns -1 for a target outside 0..V-1. */
int head_forward(const float *x, const float *norm, const float *table, const int64_t *target, const float *weight,
                float *loss, float *each, float *dx, float *dnorm, float *dtable, long tokens, long d, long v,
                float eps, int threads) {
    for (long t = 0; t < tokens; t++)
        if (target[t] < 0 || target[t] >= v) return -1;
    long piece = MOST_LOGITS / v;
    piece = piece < TILE_M ? TILE_M : at_most(piece_rows(tokens, threads), piece);
    double all = 0, counted = weight ? summed(weight, tokens) : (double)tokens;
    float *parts = calloc((size_t)threads * d, sizeof(float)), scale = counted ? 1.0f / (float)counted : 0.0f;
    float *tables = threads > 1 && dx ? floats((threads - 1) * v * d) : NULL;
    float *each_normed = for_each_thread(threads, piece * d), *each_dnormed = for_each_thread(threads, piece * d);
    float *each_logits = for_each_thread(threads, piece * v);
    int there = ALL_THERE(parts, each_normed, each_dnormed, each_logits) && (tables || threads == 1 || !dx);
    if (there)
#pragma omp parallel num_threads(threads) if (threads > 1) reduction(+ : all)
    {
        float *normed = own_part(each_normed, piece * d), *logits = own_part(each_logits, piece * v);
        float *dnormed = own_part(each_dnormed, piece * d);
        float *own_norm = parts + (long)thread() * d;
        float *own_table = thread() ? tables + (thread() - 1) * v * d : dtable;
        int begun = 0;
#pragma omp for schedule(static)
        for (long from = 0; from < tokens; from += piece) {
            long rows = at_most(piece, tokens - from);
            float rms[ROWS];
            for (long i = 0; i < rows; i++) rms[i] = norm_row(x + (from + i) * d, norm, normed + i * d, d, eps);
            product(normed, d, 1, table, 1, d, logits, v, rows, v, d, 0);
            for (long i = 0; i < rows; i++) {
                float times = weight ? weight[from + i] : 1.0f;
                float nats = entropy_row(logits + i * v, v, target[from + i], dx != NULL, scale * times);
                if (each) each[from + i] = nats;
                all += times * nats;
            }
            if (!dx) continue;
            product(logits, v, 1, table, d, 1, dnormed, d, rows, d, v, 0);
            product(logits, 1, v, normed, d, 1, own_table, d, v, d, rows, begun);
            begun = 1;
            for (long i = 0; i < rows; i++)
                norm_row_backward(dnormed + i * d, x + (from + i) * d, norm, rms[i], NULL, dx + (from + i) * d,
                                  own_norm, d);
        }
        if (dx && !begun) memset(own_table, 0, sizeof(float) * v * d);
    }
    if (there && dx) {
        gather_columns(dnorm, parts, threads, d, d);
        for (int t = 1; t < threads; t++) axpy(dtable, tables + (t - 1) * v * d, 1.0f, v * d);
    }
    if (there) *loss = counted ? (float)(all / counted) : 0.0f;
    free(parts); free(tables); free(each_normed); free(each_dnormed); free(each_logits);
    return DONE_IF(there);
}
