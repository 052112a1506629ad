/* SPDX-License-Identifier: MIT */
/* census.c - who is alive in a table of keys: counted, walked, and proven.
 *
 * What lives and dies by the clock has no count that could be kept: nothing happens when an entry
 * becomes free. So who wants to know walks the table, which nobody does who is in a hurry.
 */
#include "keys.h"

static int64_t alive(const struct neap_keys *k, const struct table *t, int64_t clock)
{
	int64_t count = 0;
	for (uint32_t i = t->gone; i < t->lines; i++)
		for (int j = 0; j < ENTRIES; j++)
			count += !is_free(k, t, &t->line[i].entry[j], clock);
	return count;
}

int64_t neap_keys_count(const struct neap_keys *k, int64_t clock)
{
	return alive(k, &k->now, clock) + alive(k, &k->old, clock);
}

static int64_t bytes_of(const struct table *t)
{
	uint64_t seen = t->seen ? (uint64_t)t->lines * ENTRIES * sizeof *t->seen - t->gone_seen : 0;
	return (int64_t)((t->lines - t->gone) * sizeof(struct line) + seen);
}

void neap_keys_stats(const struct neap_keys *k, struct neap_keys_stats *out)
{
	*out = (struct neap_keys_stats){
		.count_max = k->count_max,
		.entries = (int64_t)k->now.lines * ENTRIES,
		.bytes = bytes_of(&k->now) + bytes_of(&k->old) + (int64_t)sizeof *k,
		.refused = k->refused,
		.evicted = k->evicted,
		.moving = k->old.line ? (int64_t)(k->old.lines - k->moved) * ENTRIES : 0,
	};
}

/* One table: what is alive is within reach of its home, and once; none before 'done'; and the
 * stamps there are were given. */
static int table_check(const struct neap_keys *k, const struct table *t, uint32_t done,
		       int64_t clock)
{
	for (uint32_t i = t->gone; t->line && i < t->lines; i++) {
		for (int j = 0; j < ENTRIES; j++) {
			const struct entry *e = &t->line[i].entry[j];
			if (is_free(k, t, e, clock))
				continue;
			uint64_t hash = e->hash & ~MARK;
			uint32_t home = home_of(t, hash);
			uint32_t past = i >= home ? i - home : i + t->lines - home;
			if (i < done || past > reach_of(&t->line[home]) || place_of(t, e) >= t->places)
				return NEAP_ECORRUPT;
			if (neap_keys_seek(k, t, hash, clock) != e ||
			    (t == &k->old && neap_keys_seek(k, &k->now, hash, clock)))
				return NEAP_ECORRUPT;
			if (t->seen && (!t->seen[place_of(t, e)] || t->seen[place_of(t, e)] > k->stamp))
				return NEAP_ECORRUPT;
		}
	}
	return NEAP_OK;
}

int neap_keys_check(const struct neap_keys *k, int64_t clock)
{
	clock = clock > k->clock ? clock : k->clock;
	if (k->now.lines > k->lines_max || (k->now.lines == k->lines_max) != !k->doublings ||
	    !k->now.seen != !k->remembers || (k->old.line && !k->old.seen != !k->remembers) ||
	    k->stamp >> STAMP_BITS < (uint64_t)k->now_us || table_check(k, &k->now, 0, clock))
		return NEAP_ECORRUPT;
	return table_check(k, &k->old, k->moved, clock);
}

/* ---- in order of hash ---- */

/* The least hash whose home is this line, or one after it. */
static uint64_t first_hash(const struct table *t, uint32_t line)
{
	return ((((uint64_t)line << 32) + t->lines - 1) / t->lines) << 31;
}

/* Of those alive whose home is that of 'from', the one with the least hash from there on. */
static const struct entry *least(const struct neap_keys *k, const struct table *t, uint64_t from)
{
	const struct entry *least = NULL;
	uint32_t home = home_of(t, from), at = home;
	if (home < t->gone)
		return NULL;
	uint32_t left = reach_of(&t->line[home]) + 1;
	for (; left && at >= t->gone; left--, at = line_after(t, at))
		for (int i = 0; i < ENTRIES; i++) {
			const struct entry *e = &t->line[at].entry[i];
			uint64_t hash = e->hash & ~MARK;
			if (hash >= from && home_of(t, hash) == home && !is_free(k, t, e, k->clock) &&
			    (!least || hash < (least->hash & ~MARK)))
				least = e;
		}
	return least;
}

/* Homes are in order of hash in tables of any size. So a hash is all there is to remember of how
 * far one has come, and however entries move, none is met twice or missed. */
int neap_keys_next(const struct neap_keys *k, uint64_t *cursor, uint64_t *hash, int64_t *word)
{
	const struct table *tables[] = {&k->now, &k->old};
	for (int lines = NEAR; lines && *cursor < MARK; lines--) {
		const struct entry *next = NULL;
		uint64_t end = MARK;
		for (int i = 0; i < 2 && tables[i]->line; i++) {
			const struct entry *e = least(k, tables[i], *cursor);
			uint64_t end_here = first_hash(tables[i], home_of(tables[i], *cursor) + 1);
			end = end_here < end ? end_here : end;
			if (e && (!next || (e->hash & ~MARK) < (next->hash & ~MARK)))
				next = e;
		}
		if (next && (next->hash & ~MARK) < end) {
			*hash = next->hash & ~MARK;
			*word = next->word;
			*cursor = *hash + 1;
			return 1;
		}
		*cursor = end;
	}
	return *cursor < MARK ? 0 : -1;
}
