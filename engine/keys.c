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
 * The hash is keyed: a stranger who picks keys cannot make them meet.
 *
 * A table may remember when each key was last seen, in an array beside the lines, 8 bytes an entry:
 * microseconds, and in the low bits a count, so that no two are alike and order is exact within one
 * instant. Then an entry that was idle for too long is free, too; and the least recently seen of
 * those that a new key may use can make room for it, so that the bound is hard, to the entry.
 *
 * The clock the table goes by never steps back: what was free once may have been used again.
 *
 * Invariants:
 *   an entry that is alive lies at most reach(home) lines past its home, wrapping at the end
 *   no hash is alive twice, in both tables together
 *   lines of the old table before 'moved' are all free
 */
#include "keys.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Is the bound the entry? Where a key may use all of them, and where it makes one free. */
static int is_exact(const struct neap_keys *k)
{
	return k->evicts || k->count_max <= FAR * ENTRIES;
}

static int table_open(const struct neap_keys *k, struct table *t, uint32_t lines)
{
	char *memory = calloc((size_t)lines + 1, sizeof(struct line));
	uint64_t *seen = k->remembers ? calloc((size_t)lines * ENTRIES, sizeof *seen) : NULL;
	if (!memory || (k->remembers && !seen)) {
		free(memory);
		free(seen);
		return NEAP_ENOMEM;
	}
	size_t off = (size_t)-(uintptr_t)memory % sizeof(struct line);
	uint64_t places = (uint64_t)lines * ENTRIES, most = (uint64_t)k->count_max;
	*t = (struct table){(struct line *)(void *)(memory + off), lines, memory,
			    is_exact(k) && most < places ? most : places, seen};
	return NEAP_OK;
}

static void table_close(struct table *t)
{
	free(t->memory);
	free(t->seen);
	*t = (struct table){0};
}

/* ---- when a key was seen ---- */

static void stamp(struct neap_keys *k, struct table *t, const struct entry *e)
{
	if (k->remembers)
		t->seen[place_of(t, e)] = ++k->stamp;
}

static void reach_set(struct line *l, uint32_t reach)
{
	uint64_t code = 0;
	while (reaches[code] < reach)
		code++;
	for (int i = 0; i < ENTRIES; i++)
		l->entry[i].hash = (l->entry[i].hash & ~MARK) | (code >> i & 1) << 63;
}

struct entry *neap_keys_seek(const struct neap_keys *k, const struct table *t, uint64_t hash,
			     int64_t clock)
{
	uint32_t at = home_of(t, hash);
	for (uint32_t left = reach_of(&t->line[at]) + 1; left; left--) {
		struct entry *e = t->line[at].entry;
		for (int i = 0; i < ENTRIES; i++)
			if ((e[i].hash & ~MARK) == hash && !is_free(k, t, &e[i], clock))
				return &e[i];
		at = line_after(t, at);
	}
	return NULL;
}

/* What one walk from a key's home finds. */
struct walk {
	struct entry *own;      /* the key itself */
	struct entry *free;     /* the free entry nearest to its home */
	struct entry *oldest;   /* of those alive, the least recently seen */
	uint32_t free_at, oldest_at;   /* how many lines from home */
	uint32_t needed;        /* reach that others of this home need */
};

/* Look for the key, and within 'lines' for a place it could have. */
static struct walk walk(const struct neap_keys *k, const struct table *t, uint64_t hash,
			int64_t clock, uint32_t lines)
{
	struct walk w = {0};
	uint32_t home = home_of(t, hash), at = home, reach = reach_of(&t->line[home]);
	lines = lines < t->lines ? lines : t->lines;
	for (uint32_t d = 0; d <= reach || (d < lines && (!w.free || k->evicts)); d++) {
		struct entry *e = t->line[at].entry;
		uint64_t left = t->places - (uint64_t)at * ENTRIES;
		for (uint64_t i = 0; i < ENTRIES && i < left; i++) {
			uint64_t own = e[i].hash & ~MARK;
			if (is_free(k, t, &e[i], clock)) {
				if (!w.free && d < lines) {
					w.free = &e[i];
					w.free_at = d;
				}
				continue;
			} else if (own == hash) {
				w.own = &e[i];
				return w;
			} else if (d <= reach && home_of(t, own) == home) {
				w.needed = d;
			}
			if (t->seen && d < lines &&
			    (!w.oldest || t->seen[place_of(t, &e[i])] < t->seen[place_of(t, w.oldest)])) {
				w.oldest = &e[i];
				w.oldest_at = d;
			}
		}
		if (k->evicts && w.free && d >= reach)
			break;
		at = line_after(t, at);
	}
	return w;
}

/* Make a place the key's own, with a word that is free. */
static struct entry *settle(struct table *t, uint64_t hash, struct entry *e, uint32_t at,
			    uint32_t needed)
{
	e->hash = (e->hash & MARK) | hash;
	e->word = 0;
	reach_set(&t->line[home_of(t, hash)], needed > at ? needed : at);
	return e;
}

/* The entry of 'hash', or the free one nearest to its home within 'lines', made its own. NULL:
 * they are all alive. One walk finds the key, the place and the reach the home line needs. */
static struct entry *claim(struct neap_keys *k, struct table *t, uint64_t hash, int64_t clock,
			   uint32_t lines)
{
	struct walk w = walk(k, t, hash, clock, lines);
	if (w.own)
		return w.own;
	return w.free ? settle(t, hash, w.free, w.free_at, w.needed) : NULL;
}

/* In how many lines a new key looks for one that can make room. */
static uint32_t lines_near(const struct table *t) { return t->lines > FAR ? NEAR : FAR; }

/* Is there no larger table to hope for? */
static int must_evict(const struct neap_keys *k)
{
	return k->evicts && k->now.lines == k->lines_max;
}

/* The place of the least recently seen of those near, if that was before 'seen'. */
static struct entry *evict(struct neap_keys *k, struct table *t, uint64_t hash, int64_t clock,
			   uint64_t seen)
{
	struct walk w = walk(k, t, hash, clock, lines_near(t));
	if (w.own || w.free)
		return claim(k, t, hash, clock, lines_near(t));
	k->evicted++;
	if (t->seen[place_of(t, w.oldest)] >= seen)
		return NULL;
	/* what it leaves behind is searched for no further than it was, and is written anew in time */
	return settle(t, hash, w.oldest, w.oldest_at, w.needed);
}

/* Move up to STEP lines of the old table, and free it after the last. */
static void move_some(struct neap_keys *k, int64_t clock)
{
	for (int n = 0; n < STEP && k->moved < k->old.lines; n++, k->moved++) {
		struct entry *e = k->old.line[k->moved].entry;
		for (int i = 0; i < ENTRIES; i++) {
			if (is_free(k, &k->old, &e[i], clock))
				continue;
			uint64_t hash = e[i].hash & ~MARK;
			uint64_t seen = k->old.seen ? k->old.seen[place_of(&k->old, &e[i])] : 0;
			struct entry *to = claim(k, &k->now, hash, clock, FAR);
			if (!to && must_evict(k))
				to = evict(k, &k->now, hash, clock, seen);
			if (!to && !must_evict(k))
				return;
			if (to) {
				to->word = e[i].word;
				if (k->now.seen)
					k->now.seen[place_of(&k->now, to)] = seen;
			}
			e[i].word = 0;
		}
	}
	if (k->moved == k->old.lines)
		table_close(&k->old);
}

/* Begin to double, if there is memory; without it the table stays as it is. */
static void grow(struct neap_keys *k)
{
	struct table bigger;
	if (k->old.line || k->now.lines == k->lines_max)
		return;
	uint32_t lines = k->now.lines > k->lines_max / 2 ? k->lines_max : k->now.lines * 2;
	if (table_open(k, &bigger, lines))
		return;
	k->old = k->now;
	k->now = bigger;
	k->moved = 0;
}

static uint32_t lines_for(int64_t entries) { return (uint32_t)((entries + ENTRIES - 1) / ENTRIES); }

/* Begin, with the first table. */
static int begin(struct neap_keys *k)
{
	table_close(&k->now);
	k->lines_max = lines_for(is_exact(k) ? k->count_max : k->count_max * 5 / 4);
	return table_open(k, &k->now, k->lines_max < LINES_FIRST ? k->lines_max : LINES_FIRST);
}

struct neap_keys *neap_keys_open(int64_t count_max, const uint8_t *secret)
{
	if (count_max < 1 || count_max > 1 << 30)
		return NULL;
	struct neap_keys *k = calloc(1, sizeof *k);
	if (!k)
		return NULL;
	k->count_max = count_max;
	memcpy(k->secret, secret, sizeof k->secret);
	if (begin(k)) {
		free(k);
		return NULL;
	}
	return k;
}

int neap_keys_remember(struct neap_keys *k, neap_ns idle_ns, int evicts)
{
	struct neap_keys with = *k;
	assert(!k->old.line && !k->stamp && idle_ns >= 0);
	with.remembers = 1;
	with.evicts = evicts != 0;
	with.idle_us = idle_ns > 0 ? (idle_ns + 999) / 1000 : 0;
	with.now = (struct table){0};
	if (begin(&with))
		return NEAP_ENOMEM;
	table_close(&k->now);
	*k = with;
	return NEAP_OK;
}

void neap_keys_turn_to(struct neap_keys *k, neap_ns now)
{
	uint64_t least = (uint64_t)(now / 1000) << STAMP_BITS;
	if (k->stamp < least)
		k->stamp = least;
}

void neap_keys_close(struct neap_keys *k)
{
	if (!k)
		return;
	table_close(&k->now);
	table_close(&k->old);
	free(k);
}

static int64_t latest(struct neap_keys *k, int64_t clock)
{
	assert(clock >= 0);
	return k->clock = clock > k->clock ? clock : k->clock;
}

/* The key's entry, made if need be; and it was seen. */
static struct entry *entry_of(struct neap_keys *k, uint64_t hash, int64_t clock)
{
	struct entry *was = NULL;
	if (k->old.line) {
		move_some(k, clock);
		if (k->old.line)
			was = neap_keys_seek(k, &k->old, hash, clock);
	}
	struct entry *e = claim(k, &k->now, hash, clock, was ? FAR : NEAR);
	if (was && !e) {
		stamp(k, &k->old, was);
		return was;
	}
	if (was) {
		e->word = was->word;
		was->word = 0;
	}
	if (!e) {
		grow(k);
		e = claim(k, &k->now, hash, clock, must_evict(k) ? lines_near(&k->now) : FAR);
	}
	if (!e && k->evicts)
		e = evict(k, &k->now, hash, clock, UINT64_MAX);
	if (e)
		stamp(k, &k->now, e);
	return e;
}

int64_t *neap_keys_at(struct neap_keys *k, uint64_t hash, int64_t clock)
{
	struct entry *e = entry_of(k, hash & ~MARK, latest(k, clock));
	if (!e)
		k->refused++;
	return e ? &e->word : NULL;
}

int64_t *neap_keys_find(struct neap_keys *k, uint64_t hash, int64_t clock)
{
	clock = latest(k, clock);
	hash &= ~MARK;
	struct entry *e = neap_keys_seek(k, &k->now, hash, clock);
	if (!e && k->old.line)
		e = neap_keys_seek(k, &k->old, hash, clock);
	return e ? &e->word : NULL;
}

void neap_keys_touch(struct neap_keys *k, const int64_t *word)
{
	const char *at = (const char *)word, *first = (const char *)k->now.line;
	struct table *t = &k->now;
	if (at < first || at >= first + (size_t)t->lines * sizeof(struct line))
		t = &k->old;
	stamp(k, t, (const struct entry *)(const void *)(at - offsetof(struct entry, word)));
}

int neap_keys_room(struct neap_keys *k, uint64_t hash, int64_t clock, int64_t *least)
{
	clock = latest(k, clock);
	hash &= ~MARK;
	if (k->evicts || (!k->old.line && k->now.lines < k->lines_max))
		return 1;
	uint32_t at = home_of(&k->now, hash), lines = k->now.lines < FAR ? k->now.lines : FAR;
	*least = INT64_MAX;
	for (; lines; lines--, at = line_after(&k->now, at))
		for (int i = 0; i < ENTRIES; i++) {
			const struct entry *e = &k->now.line[at].entry[i];
			if (place_of(&k->now, e) >= k->now.places)
				break;
			if (is_free(k, &k->now, e, clock))
				return 1;
			*least = e->word < *least ? e->word : *least;
		}
	return 0;
}

void neap_keys_forget(struct neap_keys *k, uint64_t hash)
{
	int64_t *word = neap_keys_find(k, hash, k->clock);
	if (word)
		*word = 0;
}

uint64_t neap_keys_hash(const struct neap_keys *k, const char *key, size_t size)
{
	return neap_hash(k->secret, key, size);
}
