/* Words of plain text: squeezed, hashed, and the runs that two documents share. Each function has a readable twin in
 * NumPy that defines it: `squeezed_by_arrays` in text/spaces.py, and those of selection/words.py. Plain C without
 * PyTorch and OpenMP, so that planning and processes that only read text load neither. */
#include <stdint.h>
#include <string.h>

#pragma GCC visibility push(default)

#define SPACE 0x20
#define FACTOR 0x9E3779B97F4A7C15u
#define POWERS 64

int words_checksum(void) { return (int)WORDS_CHECKSUM; }

static int is_blank(uint8_t letter) { return letter == SPACE || (letter >= '\t' && letter <= '\r'); }

/* The words of a text, one space apart, into `out`, which has room for `size` bytes; returns how many it took. */
long squeeze(const uint8_t *text, long size, uint8_t *out) {
    long at = 0, end = 0;
    while (at < size) {
        while (at < size && is_blank(text[at])) at++;
        long begin = at;
        while (at < size && !is_blank(text[at])) at++;
        if (at == begin) break;
        if (end) out[end++] = SPACE;
        if (at - begin <= 16 && begin + 16 <= size && end + 16 <= size)
            memcpy(out + end, text + begin, 16); /* most words are short; what is too much is written over */
        else
            memcpy(out + end, text + begin, (size_t)(at - begin));
        end += at - begin;
    }
    return end;
}

/* A polynomial of each word's letters modulo 2^64; words are one space apart, and an empty text is one word.
 * Returns the number of words; `hashes` has room for size / 2 + 1. */
long hash_words(const uint8_t *plain, long size, const uint64_t *letters, uint64_t *hashes) {
    uint64_t powers[POWERS];
    powers[0] = 1;
    for (int at = 1; at < POWERS; at++) powers[at] = powers[at - 1] * FACTOR;
    long words = 0, at = 0;
    for (;;) {
        uint64_t sum = 0, scale = 1;
        int place = 0;
        for (; at < size && plain[at] != SPACE; at++) {
            sum += letters[plain[at]] * powers[place] * scale;
            if (++place == POWERS) {
                place = 0;
                scale *= powers[POWERS - 1] * FACTOR;
            }
        }
        hashes[words++] = sum;
        if (at++ >= size) return words;
    }
}

/* All bits mixed, one to one (the end of SplitMix64). */
static uint64_t mixed(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
    return value ^ (value >> 31);
}

/* A hash of each run of `length` words, in order: words - length + 1 of them, in place. */
void hash_runs(uint64_t *hashes, long words, long length) {
    for (long at = 0; at < words; at++) hashes[at] = mixed(hashes[at]);
    for (long at = 0; at + length <= words; at++) {
        uint64_t sum = hashes[at];
        for (long shift = 1; shift < length; shift++) sum = sum * FACTOR + hashes[at + shift];
        hashes[at] = mixed(sum);
    }
}

/* How many values two rising lists share. */
long count_shared(const uint64_t *one, long ones, const uint64_t *other, long others) {
    long at = 0, place = 0, shared = 0;
    while (at < ones && place < others) {
        uint64_t first = one[at], second = other[place];
        shared += first == second;
        at += first <= second;
        place += second <= first;
    }
    return shared;
}
