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
	for (uint32_t i = 0; i < t->lines; i++)
		for (int j = 0; j < ENTRIES; j++)
			count += !is_free(k, t, &t->line[i].entry[j], clock);
	return count;
}

int64_t neap_keys_count(const struct neap_keys *k, int64_t clock)
{
	return alive(k, &k->now, clock) + alive(k, &k->old, clock);
}

void neap_keys_stats(const struct neap_keys *k, struct neap_keys_stats *out)
{
	uint64_t lines = (uint64_t)k->now.lines + k->old.lines + 1 + (k->old.line != NULL);
	*out = (struct neap_keys_stats){
		.count_max = k->count_max,
		.entries = (int64_t)k->now.lines * ENTRIES,
		.bytes = (int64_t)(lines * sizeof(struct line) + sizeof *k) +
			 (k->remembers ? (int64_t)(lines * ENTRIES * sizeof(uint64_t)) : 0),
		.refused = k->refused,
		.evicted = k->evicted,
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
			if (is_free(k, t, e, clock))
				continue;
			uint64_t hash = e->hash & ~MARK;
			uint32_t home = home_of(t, hash);
			uint32_t past = i >= home ? i - home : i + t->lines - home;
			if (i < done || past > reach_of(&t->line[home]) || neap_keys_seek(k, t, hash, clock) != e ||
			    place_of(t, e) >= t->places)
				return NEAP_ECORRUPT;
			if (t == &k->old && neap_keys_seek(k, &k->now, hash, clock))
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

int neap_keys_next(const struct neap_keys *k, int64_t *cursor, uint64_t *hash, int64_t *word)
{
	for (int n = 0; n < STEP * ENTRIES; n++) {
		int64_t i = (*cursor)++;
		const struct table *t = &k->now;
		if (i >= (int64_t)t->lines * ENTRIES) {
			i -= (int64_t)t->lines * ENTRIES;
			t = &k->old;
		}
		if (i >= (int64_t)t->lines * ENTRIES)
			return -1;
		const struct entry *e = &t->line->entry[i];
		if (is_free(k, t, e, k->clock))
			continue;
		*hash = e->hash & ~MARK;
		*word = e->word;
		return 1;
	}
	return 0;
}
