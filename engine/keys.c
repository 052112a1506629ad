/* SPDX-License-Identifier: MIT */
/* keys.c - a bounded table from key to one 64-bit word, in which time itself deletes.
 *
 * A limit per caller needs a word per caller, for millions of them, most of whom never return. The
 * word is an instant, and once that instant has passed the key is as good as one never seen: so
 * such an entry is simply free. Nothing sweeps, nothing is evicted, no list keeps an order; there
 * are no tombstones either, for free is free, whether never used or refilled.
 *
 * An entry is 16 bytes, the key's hash in place of the key (two keys that share all 63 bits of it
 * share a limit: with a million keys, in one of twenty million tables). Four are one cache line:
 *
 *          line 7                        line 8
 *     | A7 | B7 | -  | C6 |        | D7 | -  | -  | -  |      C6: lives in 7, its home is 6
 *      reach(7) = 1                 reach(8) = 0              D7: 7 was full when it came
 *
 * A key has a home line and lives there or in one that follows. Ordinary linear probing stops at
 * an entry that was never used, and when keys come and go for long none of those is left. Here
 * each line knows its own reach, how far the keys it is home to have had to go, and a search ends
 * there: mostly after one line. The reach is a code of four bits, 0 to 127 lines, one bit in each
 * of the line's four hashes (the top one). It is written anew by each search that makes an entry,
 * from what that search saw, so it falls again as keys die.
 *
 * Growth doubles, and moves four lines of the old table per call, so no call is slow. While it
 * lasts a key is looked for in both; found in the old one it moves at once. An entry that finds
 * no room in the new table stays where it is until time makes some: nothing alive is lost, ever.
 * When to grow: a new key found its first 16 lines full, which happens from about 60 % on. At the
 * bound it may go all of 128, and finds room up to 80 % but for one key in ten million.
 *
 * Homes are the high half of hash * lines, so any number of lines will do and the bound is exact.
 * The hash is keyed (SipHash-1-3, by Aumasson and Bernstein): a stranger who picks keys cannot
 * make them meet. Faster hashes lost because theirs can meet under every seed.
 *
 * The clock the table goes by never steps back: what was free once may have been used again.
 *
 * Invariants:
 *   an entry that is alive lies at most reach(home) lines past its home, wrapping at the end
 *   no hash is alive twice, in both tables together
 *   lines of the old table before 'moved' are all free
 */
#include "neap.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRIES = 4, NEAR = 16, FAR = 128, STEP = 4, LINES_FIRST = 128 };

#define MARK (UINT64_C(1) << 63)

struct entry {
	uint64_t hash;   /* top bit: one bit of the line's reach */
	int64_t word;
};

struct line {
	struct entry entry[ENTRIES];
};

struct table {
	struct line *line;
	uint32_t lines;
	void *memory;     /* what to free: 'line' is this, aligned */
};

struct neap_keys {
	struct table now, old;   /* old.line NULL: nothing is moving */
	uint32_t moved;          /* lines of old that are done */
	uint32_t lines_max;
	int64_t count_max, refused;
	int64_t clock;           /* the latest seen */
	uint64_t secret[2];
};

static int table_open(struct table *t, uint32_t lines)
{
	char *memory = calloc((size_t)lines + 1, sizeof(struct line));
	if (!memory)
		return NEAP_ENOMEM;
	size_t off = (size_t)-(uintptr_t)memory % sizeof(struct line);
	*t = (struct table){(struct line *)(void *)(memory + off), lines, memory};
	return NEAP_OK;
}

static uint32_t home_of(const struct table *t, uint64_t hash)
{
	return (uint32_t)(((hash << 1) >> 32) * t->lines >> 32);
}

static uint32_t line_after(const struct table *t, uint32_t line)
{
	return line + 1 == t->lines ? 0 : line + 1;
}

/* What a code of four bits reaches: lines beyond the home line. */
static const uint8_t reaches[16] = {0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, FAR - 1};

static uint32_t reach_of(const struct line *l)
{
	return reaches[l->entry[0].hash >> 63 | l->entry[1].hash >> 63 << 1 |
		       l->entry[2].hash >> 63 << 2 | l->entry[3].hash >> 63 << 3];
}

static void reach_set(struct line *l, uint32_t reach)
{
	uint64_t code = 0;
	while (reaches[code] < reach)
		code++;
	for (int i = 0; i < ENTRIES; i++)
		l->entry[i].hash = (l->entry[i].hash & ~MARK) | (code >> i & 1) << 63;
}

static struct entry *find(const struct table *t, uint64_t hash, int64_t clock)
{
	uint32_t at = home_of(t, hash);
	for (uint32_t left = reach_of(&t->line[at]) + 1; left; left--) {
		struct entry *e = t->line[at].entry;
		for (int i = 0; i < ENTRIES; i++)
			if ((e[i].hash & ~MARK) == hash && e[i].word > clock)
				return &e[i];
		at = line_after(t, at);
	}
	return NULL;
}

/* The entry of 'hash', or the free one nearest to its home within 'lines', made its own. NULL:
 * they are all alive. One walk finds the key, the place and the reach the home line needs. */
static struct entry *claim(struct table *t, uint64_t hash, int64_t clock, uint32_t lines)
{
	uint32_t home = home_of(t, hash), at = home;
	uint32_t reach = reach_of(&t->line[home]), needed = 0, place = 0;
	struct entry *free = NULL;
	for (uint32_t d = 0; d <= reach || (!free && d < lines); d++) {
		struct entry *e = t->line[at].entry;
		for (int i = 0; i < ENTRIES; i++) {
			uint64_t own = e[i].hash & ~MARK;
			if (e[i].word <= clock) {
				if (!free && d < lines) {
					free = &e[i];
					place = d;
				}
			} else if (own == hash) {
				return &e[i];
			} else if (d <= reach && home_of(t, own) == home) {
				needed = d;
			}
		}
		at = line_after(t, at);
	}
	if (!free)
		return NULL;
	free->hash = (free->hash & MARK) | hash;
	free->word = 0;
	reach_set(&t->line[home], needed > place ? needed : place);
	return free;
}

/* Move up to STEP lines of the old table, and free it after the last. */
static void move_some(struct neap_keys *k, int64_t clock)
{
	for (int n = 0; n < STEP && k->moved < k->old.lines; n++, k->moved++) {
		struct entry *e = k->old.line[k->moved].entry;
		for (int i = 0; i < ENTRIES; i++) {
			if (e[i].word <= clock)
				continue;
			struct entry *to = claim(&k->now, e[i].hash & ~MARK, clock, FAR);
			if (!to)
				return;
			to->word = e[i].word;
			e[i].word = 0;
		}
	}
	if (k->moved < k->old.lines)
		return;
	free(k->old.memory);
	k->old = (struct table){NULL, 0, NULL};
}

/* Begin to double. Says whether there is a larger table now; without memory there is not. */
static int grow(struct neap_keys *k)
{
	struct table bigger;
	if (k->old.line || k->now.lines == k->lines_max)
		return 0;
	uint32_t lines = k->now.lines > k->lines_max / 2 ? k->lines_max : k->now.lines * 2;
	if (table_open(&bigger, lines))
		return 0;
	k->old = k->now;
	k->now = bigger;
	k->moved = 0;
	return 1;
}

struct neap_keys *neap_keys_open(int64_t count_max, const uint8_t *secret)
{
	if (count_max < 1 || count_max > 1 << 30)
		return NULL;
	struct neap_keys *k = calloc(1, sizeof *k);
	if (!k)
		return NULL;
	int64_t lines = (count_max * 5 / 4 + ENTRIES - 1) / ENTRIES;
	k->lines_max = (uint32_t)lines;
	k->count_max = count_max;
	memcpy(k->secret, secret, sizeof k->secret);
	k->secret[0] = le64toh(k->secret[0]);
	k->secret[1] = le64toh(k->secret[1]);
	if (table_open(&k->now, lines < LINES_FIRST ? (uint32_t)lines : LINES_FIRST)) {
		free(k);
		return NULL;
	}
	return k;
}

void neap_keys_close(struct neap_keys *k)
{
	if (!k)
		return;
	free(k->now.memory);
	free(k->old.memory);
	free(k);
}

static int64_t latest(struct neap_keys *k, int64_t clock)
{
	assert(clock >= 0);
	return k->clock = clock > k->clock ? clock : k->clock;
}

int64_t *neap_keys_at(struct neap_keys *k, uint64_t hash, int64_t clock)
{
	clock = latest(k, clock);
	hash &= ~MARK;
	struct entry *was = NULL;
	if (k->old.line) {
		move_some(k, clock);
		if (k->old.line)
			was = find(&k->old, hash, clock);
	}
	struct entry *e = claim(&k->now, hash, clock, was ? FAR : NEAR);
	if (was && !e)
		return &was->word;
	if (was) {
		e->word = was->word;
		was->word = 0;
	}
	if (!e) {
		grow(k);
		e = claim(&k->now, hash, clock, FAR);
	}
	if (!e) {
		k->refused++;
		return NULL;
	}
	return &e->word;
}

int64_t *neap_keys_find(struct neap_keys *k, uint64_t hash, int64_t clock)
{
	clock = latest(k, clock);
	hash &= ~MARK;
	struct entry *e = find(&k->now, hash, clock);
	if (!e && k->old.line)
		e = find(&k->old, hash, clock);
	return e ? &e->word : NULL;
}

static int64_t alive(const struct table *t, int64_t clock)
{
	int64_t count = 0;
	for (uint32_t i = 0; i < t->lines; i++)
		for (int j = 0; j < ENTRIES; j++)
			count += t->line[i].entry[j].word > clock;
	return count;
}

int64_t neap_keys_count(const struct neap_keys *k, int64_t clock)
{
	return alive(&k->now, clock) + alive(&k->old, clock);
}

void neap_keys_stats(const struct neap_keys *k, struct neap_keys_stats *out)
{
	uint64_t lines = (uint64_t)k->now.lines + k->old.lines + 1 + (k->old.line != NULL);
	*out = (struct neap_keys_stats){
		.count_max = k->count_max,
		.entries = (int64_t)k->now.lines * ENTRIES,
		.bytes = (int64_t)(lines * sizeof(struct line) + sizeof *k),
		.refused = k->refused,
		.moving = k->old.line ? (int64_t)(k->old.lines - k->moved) * ENTRIES : 0,
	};
}

/* One table: what is alive is within reach of its home, and once; none before 'done'. */
static int table_check(const struct neap_keys *k, const struct table *t, uint32_t done,
		       int64_t clock)
{
	for (uint32_t i = 0; i < t->lines; i++) {
		for (int j = 0; j < ENTRIES; j++) {
			const struct entry *e = &t->line[i].entry[j];
			if (e->word <= clock)
				continue;
			uint64_t hash = e->hash & ~MARK;
			uint32_t home = home_of(t, hash);
			uint32_t past = i >= home ? i - home : i + t->lines - home;
			if (i < done || past > reach_of(&t->line[home]) || find(t, hash, clock) != e)
				return NEAP_ECORRUPT;
			if (t == &k->old && find(&k->now, hash, clock))
				return NEAP_ECORRUPT;
		}
	}
	return NEAP_OK;
}

int neap_keys_check(const struct neap_keys *k, int64_t clock)
{
	clock = clock > k->clock ? clock : k->clock;
	if (k->now.lines > k->lines_max || table_check(k, &k->now, 0, clock))
		return NEAP_ECORRUPT;
	return table_check(k, &k->old, k->moved, clock);
}

/* SipHash, 1 round per 8 bytes and 3 at the end. */
struct sip { uint64_t a, b, c, d; };

static uint64_t rotated(uint64_t x, int left)
{
	return x << left | x >> (64 - left);
}

static inline struct sip sip_round(struct sip s)
{
	s.a += s.b;
	s.c += s.d;
	s.b = rotated(s.b, 13) ^ s.a;
	s.d = rotated(s.d, 16) ^ s.c;
	s.a = rotated(s.a, 32);
	s.c += s.b;
	s.a += s.d;
	s.b = rotated(s.b, 17) ^ s.c;
	s.d = rotated(s.d, 21) ^ s.a;
	s.c = rotated(s.c, 32);
	return s;
}

static inline struct sip sip_eat(struct sip s, uint64_t word)
{
	s.d ^= word;
	s = sip_round(s);
	s.a ^= word;
	return s;
}

/* Up to eight bytes as a number. */
static inline uint64_t word_of(const char *p, size_t size)
{
	uint64_t word = 0;
	memcpy(&word, p, size);
	return le64toh(word);
}

uint64_t neap_hash(const uint8_t *secret, const char *key, size_t size)
{
	uint64_t k[2];
	memcpy(k, secret, sizeof k);
	k[0] = le64toh(k[0]);
	k[1] = le64toh(k[1]);
	struct sip s = {
		k[0] ^ UINT64_C(0x736f6d6570736575), k[1] ^ UINT64_C(0x646f72616e646f6d),
		k[0] ^ UINT64_C(0x6c7967656e657261), k[1] ^ UINT64_C(0x7465646279746573),
	};
	size_t left = size;
	for (; left >= 8; left -= 8, key += 8)
		s = sip_eat(s, word_of(key, 8));
	s = sip_eat(s, word_of(key, left) | (uint64_t)size << 56);
	s.c ^= 0xff;
	s = sip_round(sip_round(sip_round(s)));
	return s.a ^ s.b ^ s.c ^ s.d;
}

uint64_t neap_hash_integer(const uint8_t *secret, int64_t key)
{
	char bytes[9] = {0};
	memcpy(bytes + 1, &key, 8);
	return ~neap_hash(secret, bytes, sizeof bytes);
}

uint64_t neap_keys_hash(const struct neap_keys *k, const char *key, size_t size)
{
	uint64_t secret[2] = {htole64(k->secret[0]), htole64(k->secret[1])};
	return neap_hash((const uint8_t *)secret, key, size);
}
