/* SPDX-License-Identifier: MIT */
/* keyed.h - a limit for every key, from the inside. Private to keyed.c, faces.c and
 * words.c. */
#ifndef NEAP_KEYED_H
#define NEAP_KEYED_H

#include "asked.h"
#include "held.h"

struct neap_keyed {
	struct neap_limiter like, shared;
	struct neap_keys *keys;   /* NULL: keys have limiters of their own, or none, or: */
	struct neap_slot *slot;   /* the table is that of a segment */
	struct neap_roster own;
	struct neap_helds held;   /* rates alone */
	int32_t full;
	int64_t shares, refused, evicted;
	neap_ns idle_ns;
	uint8_t secret[16];
	int64_t count_max;

	/* being carried over: */
	struct neap_keys *old;    /* NULL: nothing is */
	struct neap_limiter was;  /* what 'like' was */
	int32_t keep;
	neap_ns changed;          /* when */
	uint64_t cursor;          /* in 'old' */
	int32_t left;             /* 1: somebody before the cursor found no place */
};

/* Up to here a word is as good as none. */
int64_t neap_word_clock(const struct neap_limiter *l, neap_ns now);
/* An empty table as it is to have. */
struct neap_keys *neap_keyed_table(const struct neap_keyed *k);
/* Carry a few words over from the old table, which there is; when the cursor is 0 then, and there is
 * one still, that was all that have a place. */
void neap_keyed_carry_some(struct neap_keyed *k, neap_ns now);

#endif
