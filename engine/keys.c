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
 * lasts a key is looked for in both; found in the old one by who may change it, it moves at once.
 * An entry that finds no room in the new table stays where it is until time makes some: nothing
 * alive is lost, ever. Memory of lines long moved goes back a piece at a time (pages.c).
 * When to grow: a new key found its first 16 lines full, which happens from about 60 % on. At the
 * bound it may go all of 128, and finds room up to 80 % but for one key in ten million.
 *
 * Homes are the high half of hash * lines, so any number of lines will do and the bound is exact.
 * The hash is keyed: a stranger who picks keys cannot make them meet.
 *
 * A table may remember when each key was last seen, in an array beside the lines, 8 bytes an entry:
 * microseconds, and in the low bits a count, so that no two are alike and order is exact within one
 * instant. Then an entry that was idle for too long is free, too; and a new key that finds no place
 * may take that of the least recently seen, so that the bound is hard, to the entry; also while it
 * grows, for the next table is at least 2n - 1 lines where this one has n, and for one new key four
 * lines move. A large table is full in the end, and 8 lines are as far as a key goes there: of the
 * half of count_max seen last nobody was taken in a trial, and one in 200 too early until 80 % came.
 *
 * The clock the table goes by never steps back: what was free once may have been used again.
 *
 * Invariants:
 *   an entry that is alive lies at most reach(home) lines past its home, wrapping at the end
 *   no hash is alive twice, in both tables together
 *   lines of the old table before 'moved' are all free, and nobody whose home is FAR before those
 *   lies in it
 *   no stamp is given twice, and the latest is never behind the clock
 */
#include "keys.h"
#include "pages.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Is the bound the entry? Where a key may use all of them, and where it makes one free. */
static int is_exact(const struct neap_keys *k)
{
	return k->evicts || k->count_max <= (int64_t)FAR * ENTRIES;
}

static size_t size_of(const struct table *t) { return t->lines * sizeof(struct line); }
static size_t size_of_seen(const struct table *t) { return size_of(t) / 2; }

static int table_open(const struct neap_keys *k, struct table *t, uint32_t lines)
{
	uint64_t places = (uint64_t)lines * ENTRIES, most = (uint64_t)k->count_max;
	struct table fresh = {.lines = lines,
			      .places = is_exact(k) && most < places ? most : places};
	fresh.line = neap_pages_open(size_of(&fresh));
	if (!fresh.line)
		return NEAP_ENOMEM;
	if (k->remembers && !(fresh.seen = neap_pages_open(size_of_seen(&fresh)))) {
		neap_pages_close(fresh.line, size_of(&fresh), 0);
		return NEAP_ENOMEM;
	}
	*t = fresh;
	return NEAP_OK;
}

static void table_close(struct table *t)
{
	neap_pages_close(t->line, size_of(t), t->gone * sizeof(struct line));
	neap_pages_close(t->seen, size_of_seen(t), t->gone_seen);
	*t = (struct table){0};
}

/* Give back some of the memory of the lines before this one, which are free; stamps after them. */
static void table_give(struct table *t, uint32_t line)
{
	size_t gone = t->gone * sizeof(struct line);
	gone = neap_pages_give(t->line, size_of(t), gone, line * sizeof(struct line));
	t->gone = (uint32_t)(gone / sizeof(struct line));
	if (t->seen)
		t->gone_seen = neap_pages_give(t->seen, size_of_seen(t), t->gone_seen, gone / 2);
}

static void stamp(struct neap_keys *k, struct table *t, const struct entry *e)
{
	if (k->remembers)
		t->seen[place_of(t, e)] = ++k->stamp;
}

/* ---- where a key is, or could be ---- */

static void reach_set(struct line *l, uint32_t reach)
{
	uint64_t code = 0;
	while (reaches[code] < reach)
		code++;
	for (int i = 0; i < ENTRIES; i++)
		l->entry[i].hash = (l->entry[i].hash & ~MARK) | (code >> i & 1) << 63;
}

/* Which of a line's entries have this hash, one bit each: more than one when all but one are free.
 * No branch, for which of them it is nobody can predict, and the next key's line has to wait. */
static unsigned matches(const struct line *l, uint64_t hash)
{
	unsigned bits = 0;
	for (int i = 0; i < ENTRIES; i++)
		bits |= (unsigned)((l->entry[i].hash & ~MARK) == hash) << i;
	return bits;
}

void neap_keys_hint(const struct neap_keys *k, uint64_t hash)
{
	uint32_t home = home_of(&k->now, hash);
	__builtin_prefetch(&k->now.line[home]);
	__builtin_prefetch(&k->now.line[home + 1]);   /* one key in five is there, or after it */
	if (k->now.seen)
		__builtin_prefetch(&k->now.seen[(size_t)home * ENTRIES]);
}

struct entry *neap_keys_seek(const struct neap_keys *k, const struct table *t, uint64_t hash,
			     int64_t clock)
{
	uint32_t home = home_of(t, hash), at = home, past = 0, reach = 0;
	do {
		if (at < t->gone)
			return NULL;
		for (unsigned bits = matches(&t->line[at], hash); bits; bits &= bits - 1) {
			struct entry *e = &t->line[at].entry[__builtin_ctz(bits)];
			if (!is_free(k, t, e, clock))
				return e;
		}
		if (!past) {   /* mostly it is there; if not, all lines in reach are asked for at once */
			reach = reach_of(&t->line[home]);
			for (uint32_t d = 2; d <= reach && d < NEAR; d++)
				__builtin_prefetch(&t->line[home + d]);
		}
		at = line_after(t, at);
	} while (past++ < reach);
	return NULL;
}

/* What one walk from a key's home finds: the place it could have, and the reach that others of
 * that home need. */
struct walk {
	struct entry *place;  /* the free entry nearest to its home; NULL: all are alive */
	uint32_t past;        /* of 'place': lines past the home line */
	uint32_t needed;
};

/* Which of a line's entries are free, and there to be used. */
static unsigned free_of(const struct neap_keys *k, const struct table *t, uint32_t line,
			int64_t clock)
{
	const struct entry *e = t->line[line].entry;
	uint64_t left = t->places - (uint64_t)line * ENTRIES;
	unsigned bits = 0;
	for (int i = 0; i < ENTRIES; i++)
		bits |= (unsigned)(e[i].word <= clock) << i;
	for (int i = 0; k->idle_us && i < ENTRIES; i++)
		bits |= (unsigned)is_free(k, t, &e[i], clock) << i;
	return left < ENTRIES ? bits & ((1U << left) - 1) : bits;
}

/* Which of them have this home; free ones are taken at their word. */
static unsigned at_home(const struct table *t, uint32_t line, uint32_t home)
{
	unsigned bits = 0;
	for (int i = 0; i < ENTRIES; i++)
		bits |= (unsigned)(home_of(t, t->line[line].entry[i].hash & ~MARK) == home) << i;
	return bits;
}

static struct walk walk(const struct neap_keys *k, const struct table *t, uint64_t hash,
			int64_t clock, uint32_t lines)
{
	struct walk w = {0};
	lines = lines < t->lines ? lines : t->lines;
	uint32_t home = home_of(t, hash), at = home, reach = reach_of(&t->line[home]);
	for (uint32_t d = 0; d <= reach || (!w.place && d < lines); d++) {
		unsigned free = free_of(k, t, at, clock);
		if (d <= reach)
			w.needed = at_home(t, at, home) & ~free ? d : w.needed;
		if (!w.place && free && d < lines) {
			w.place = &t->line[at].entry[__builtin_ctz(free)];
			w.past = d;
		}
		at = line_after(t, at);
	}
	return w;
}

/* In how many lines of the table a new key may live. Where it makes room for itself it need not
 * go far, unless that would be too early, in a table that is to grow. */
static uint32_t range_of(const struct neap_keys *k)
{
	uint32_t lines = k->now.lines;
	if (lines <= FAR)
		return lines;
	return k->evicts && lines == k->lines_max ? CLOSE : FAR;
}

/* Is there a place at all? */
static int has_place(const struct neap_keys *k, uint64_t hash, int64_t clock)
{
	uint32_t at = home_of(&k->now, hash);
	for (uint32_t lines = range_of(k); lines; lines--, at = line_after(&k->now, at))
		if (free_of(k, &k->now, at, clock))
			return 1;
	return 0;
}

/* Make the place the key's own, with a word that is free. */
static struct entry *settle(struct table *t, uint64_t hash, const struct walk *w)
{
	w->place->hash = (w->place->hash & MARK) | hash;
	w->place->word = 0;
	reach_set(&t->line[home_of(t, hash)], w->needed > w->past ? w->needed : w->past);
	return w->place;
}

/* The places of a walk are all alive: let it have that of the least recently seen, if that was
 * before 'seen'; else who asks is that one. */
static void evict(struct neap_keys *k, const struct table *t, uint64_t hash, uint64_t seen,
		  struct walk *w)
{
	assert(t->seen);
	uint32_t at = home_of(t, hash), lines = range_of(k);
	uint64_t least = seen;
	for (uint32_t d = 0; d < lines; d++, at = line_after(t, at))
		for (uint64_t i = (uint64_t)at * ENTRIES, n = 0; n < ENTRIES && i < t->places; i++, n++)
			if (t->seen[i] < least) {
				least = t->seen[i];
				w->place = &t->line->entry[i];
				w->past = d;
			}
	k->evicted++;
}

/* ---- growth ---- */

/* The table has this many lines before its last 'doublings': the bound's, halved and rounded up. */
static uint32_t lines_before(const struct neap_keys *k, int doublings)
{
	return (uint32_t)((k->lines_max + (UINT64_C(1) << doublings) - 1) >> doublings);
}

/* Begin to double. Says whether there is a larger table now; without memory there is not. */
static int grow(struct neap_keys *k)
{
	struct table bigger;
	if (k->old.line || !k->doublings)
		return 0;
	if (table_open(k, &bigger, lines_before(k, k->doublings - 1)))
		return 0;
	k->doublings--;
	k->old = k->now;
	k->now = bigger;
	k->moved = 0;
	return 1;
}

/* Move one entry into the larger table. 0: there is no place for it until time has made one. */
static int move(struct neap_keys *k, struct entry *e)
{
	uint64_t hash = e->hash & ~MARK, seen = 0;
	struct walk w = walk(k, &k->now, hash, k->clock, range_of(k));
	if (k->old.seen)
		seen = k->old.seen[place_of(&k->old, e)];
	if (!w.place && k->evicts)
		evict(k, &k->now, hash, seen, &w);
	else if (!w.place)
		return 0;
	if (w.place) {
		settle(&k->now, hash, &w)->word = e->word;
		if (k->now.seen)
			k->now.seen[place_of(&k->now, w.place)] = seen;
	}
	e->word = 0;
	return 1;
}

/* Move up to STEP lines of the old table, and close it after the last. What lies FAR behind nobody
 * looks at who is looking for what is still there. */
static void move_some(struct neap_keys *k)
{
	for (int n = 0; n < STEP && k->moved < k->old.lines; n++, k->moved++) {
		struct entry *e = k->old.line[k->moved].entry;
		for (int i = 0; i < ENTRIES; i++)
			if (!is_free(k, &k->old, &e[i], k->clock) && !move(k, &e[i]))
				return;
	}
	if (k->moved == k->old.lines)
		table_close(&k->old);
	else if (k->moved > FAR)
		table_give(&k->old, k->moved - FAR);
}

/* ---- open, close ---- */

/* Begin, with the first table. */
static int begin(struct neap_keys *k)
{
	int64_t places = is_exact(k) ? k->count_max : k->count_max * 5 / 4;
	k->lines_max = (uint32_t)((places + ENTRIES - 1) / ENTRIES);
	while (lines_before(k, k->doublings) > LINES_FIRST)
		k->doublings++;
	return table_open(k, &k->now, lines_before(k, k->doublings));
}

struct neap_keys *neap_keys_open(int64_t count_max, const uint8_t *secret)
{
	if (count_max < 1 || count_max > 1 << 30)
		return NULL;
	struct neap_keys *k = calloc(1, sizeof *k);
	if (!k)
		return NULL;
	k->count_max = count_max;
	k->absent = MARK;
	memcpy(k->secret, secret, sizeof k->secret);
	if (begin(k)) {
		free(k);
		return NULL;
	}
	return k;
}

int neap_keys_remember(struct neap_keys *k, neap_ns idle_ns, int full)
{
	struct neap_keys with = *k;
	assert(!k->old.line && !k->stamp && idle_ns >= 0 && idle_ns <= neap_horizon);
	with.remembers = 1;
	with.evicts = full == NEAP_LEAST_RECENT;
	with.idle_us = (idle_ns + 999) / 1000;
	with.doublings = 0;
	if (begin(&with))
		return NEAP_ENOMEM;
	table_close(&k->now);
	*k = with;
	return NEAP_OK;
}

void neap_keys_close(struct neap_keys *k)
{
	if (!k)
		return;
	table_close(&k->now);
	table_close(&k->old);
	free(k);
}

int neap_keys_close_some(struct neap_keys *k)
{
	struct table *t = k->old.line ? &k->old : &k->now;
	uint32_t gone = t->gone;
	table_give(t, t->lines);
	if (t->gone > gone && t->gone < t->lines)
		return 0;
	table_close(t);
	if (t == &k->old)
		return 0;
	free(k);
	return 1;
}

/* ---- verbs ---- */

void neap_keys_turn_to(struct neap_keys *k, neap_ns now)
{
	assert(now >= 0 && now <= neap_horizon);
	if (now / 1000 > k->now_us)
		k->now_us = now / 1000;
	uint64_t least = (uint64_t)k->now_us << STAMP_BITS;
	if (k->stamp < least)
		k->stamp = least;
	if (k->old.line)
		move_some(k);
}

static int64_t latest(struct neap_keys *k, int64_t clock)
{
	assert(clock >= 0);
	return k->clock = clock > k->clock ? clock : k->clock;
}

/* A place for a new key, or NULL. */
static struct entry *place_for(struct neap_keys *k, uint64_t hash)
{
	uint32_t range = range_of(k);
	struct walk w = walk(k, &k->now, hash, k->clock, range < NEAR ? range : NEAR);
	if (!w.place && (grow(k) || range > NEAR))
		w = walk(k, &k->now, hash, k->clock, range_of(k));
	if (!w.place && k->evicts)
		evict(k, &k->now, hash, UINT64_MAX, &w);
	return w.place ? settle(&k->now, hash, &w) : NULL;
}

int64_t *neap_keys_at(struct neap_keys *k, uint64_t hash, int64_t clock)
{
	clock = latest(k, clock);
	hash &= ~MARK;
	struct entry *e = NULL;
	neap_keys_hint(k, hash);
	if (hash != k->absent)
		e = neap_keys_seek(k, &k->now, hash, clock);
	k->absent = MARK;
	if (!e && k->old.line && (e = neap_keys_seek(k, &k->old, hash, clock)) != NULL) {
		stamp(k, &k->old, e);   /* seen, so that it does not make room for others */
		if (!move(k, e))
			return &e->word;
		e = neap_keys_seek(k, &k->now, hash, clock);
	}
	if (!e)
		e = place_for(k, hash);
	if (!e) {
		k->refused++;
		return NULL;
	}
	stamp(k, &k->now, e);
	if (k->old.line) {
		int64_t word = e->word;
		e->word = INT64_MAX;   /* its place is not free for what moves */
		move_some(k);
		e->word = word;
	}
	return &e->word;
}

int64_t *neap_keys_find(struct neap_keys *k, uint64_t hash, int64_t clock)
{
	clock = latest(k, clock);
	hash &= ~MARK;
	struct entry *e = neap_keys_seek(k, &k->now, hash, clock);
	if (!e && k->old.line)
		e = neap_keys_seek(k, &k->old, hash, clock);
	if (!e)
		k->absent = hash;
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

int neap_keys_room(struct neap_keys *k, uint64_t hash, int64_t clock, int64_t *least,
		   neap_ns *idle_at)
{
	clock = latest(k, clock);
	hash &= ~MARK;
	if (k->evicts || has_place(k, hash, clock) || grow(k))
		return 1;
	const struct table *t = &k->now;
	uint32_t at = home_of(t, hash);
	uint64_t seen = UINT64_MAX;
	*least = INT64_MAX;
	for (uint32_t lines = range_of(k); lines; lines--, at = line_after(t, at))
		for (uint64_t i = (uint64_t)at * ENTRIES, n = 0; n < ENTRIES && i < t->places; i++, n++) {
			if (t->line->entry[i].word < *least)
				*least = t->line->entry[i].word;
			if (k->idle_us && t->seen[i] < seen)
				seen = t->seen[i];
		}
	*idle_at = k->idle_us ? ((int64_t)(seen >> STAMP_BITS) + k->idle_us) * 1000 : neap_never;
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
