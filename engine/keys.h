/* SPDX-License-Identifier: MIT */
/* keys.h - the table's inside. Private to keys.c, which has the essay, and census.c; the hint is
 * for keyed.c. */
#ifndef NEAP_TABLE_H
#define NEAP_TABLE_H

#include "neap.h"

enum {
	ENTRIES = 4,
	CLOSE = 8, NEAR = 16, FAR = 128,   /* lines in which a new key may live: keys.c says when */
	STEP = 4,                          /* lines moved per call */
	LINES_FIRST = 128,
	STAMP_BITS = 12,
};

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
	uint32_t gone;    /* of these the memory is given back; they are free */
	uint64_t places;  /* entries in use, from the first on */
	uint64_t *seen;   /* [lines * ENTRIES] stamps; NULL: not remembered */
	size_t gone_seen; /* bytes of them */
};

struct neap_keys {
	struct table now, old;   /* old.line NULL: nothing is moving */
	uint32_t moved;          /* lines of old that are done */
	uint32_t lines_max;
	int32_t doublings;       /* yet to come, until there are lines_max */
	int64_t count_max, refused;
	int64_t clock;           /* the latest seen */
	int32_t remembers, evicts;
	int64_t idle_us;         /* 0: nobody is idle */
	int64_t now_us;          /* the latest seen */
	uint64_t stamp;          /* the latest given */
	uint64_t absent;         /* hash of a key that is not there, just looked for; or MARK */
	int64_t evicted;
	uint8_t secret[16];
};

/* A key will be looked for soon: begin to fetch its line from memory, which takes longer than all
 * the rest of a request. */
void neap_keys_hint(const struct neap_keys *k, uint64_t hash);

/* ---- where things are ---- */

static inline uint64_t place_of(const struct table *t, const struct entry *e)
{
	return (uint64_t)(e - t->line->entry);
}

/* Is there nothing in the entry? */
static inline int is_free(const struct neap_keys *k, const struct table *t, const struct entry *e,
		   int64_t clock)
{
	if (e->word <= clock)
		return 1;
	if (!k->idle_us)
		return 0;
	return k->now_us - (int64_t)(t->seen[place_of(t, e)] >> STAMP_BITS) >= k->idle_us;
}

static inline uint32_t home_of(const struct table *t, uint64_t hash)
{
	return (uint32_t)(((hash << 1) >> 32) * t->lines >> 32);
}

static inline uint32_t line_after(const struct table *t, uint32_t line)
{
	return line + 1 == t->lines ? 0 : line + 1;
}

/* What a code of four bits reaches: lines beyond the home line. */
static const uint8_t reaches[16] = {0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, FAR - 1};

static inline uint32_t reach_of(const struct line *l)
{
	return reaches[l->entry[0].hash >> 63 | l->entry[1].hash >> 63 << 1 |
		       l->entry[2].hash >> 63 << 2 | l->entry[3].hash >> 63 << 3];
}

/* The entry of a hash that is alive in this table, or NULL. */
struct entry *neap_keys_seek(const struct neap_keys *k, const struct table *t, uint64_t hash,
			     int64_t clock);

#endif
