/* SPDX-License-Identifier: MIT */
/* held.h - keys of a keyed limiter that are held. Private to keyed.c; held.c has the essay. */
#ifndef NEAP_HELD_H
#define NEAP_HELD_H

#include "line.h"

struct neap_held {
	struct neap_key key;      /* of: the keyed; tag: the key's hash */
	int64_t word, stands;     /* a gcra's tat, and where its clock stands */
	neap_ns until;            /* 0: it is not held, and only tokens were taken or came back */
	neap_ns since;
};

struct neap_helds {
	struct neap_roster record;
	uint32_t looked_at;       /* where _release goes on */
};

void neap_helds_init(struct neap_helds *s);
void neap_helds_free(struct neap_helds *s);
/* The key's record, or NULL; valid until the next _add. */
struct neap_held *neap_helds_find(const struct neap_helds *s, const void *of, uint64_t key);
/* One more, of a key that has none: NULL without memory. */
struct neap_held *neap_helds_add(struct neap_helds *s, const void *of, uint64_t key);
void neap_helds_remove(struct neap_helds *s, struct neap_held *h);
/* Let go of some that are over. */
void neap_helds_release(struct neap_helds *s, const struct neap_gcra *like, neap_ns now);
/* All of them, from one limit to another; see neap_gcra_carry. */
void neap_helds_carry(struct neap_helds *s, const struct neap_gcra *was,
		      const struct neap_gcra *like, int keep, neap_ns now);
/* How many are held, or owe something. */
int64_t neap_helds_count(const struct neap_helds *s, const struct neap_gcra *like, neap_ns now);

/* Make the limit of all what it is for this key; and keep what became of it. */
void neap_held_wear(const struct neap_held *h, struct neap_gcra *g);
void neap_held_note(struct neap_held *h, const struct neap_gcra *g, neap_ns now);
/* Is it held, or was it within this ns? Until that ends those who wait are asked what it has become. */
static inline int neap_held_is_on(const struct neap_held *h, neap_ns now)
{
	return now <= h->until || now <= h->since;
}
/* Neither that, nor does it owe anything, since before this ns. */
int neap_held_is_over(const struct neap_held *h, const struct neap_gcra *like, neap_ns now);

#endif
