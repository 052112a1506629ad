/* SPDX-License-Identifier: MIT */
/* stripes.h - where things are in a table that processes share. Private to stripes.c and muster.c. */
#ifndef NEAP_STRIPES_H
#define NEAP_STRIPES_H

#include "segment.h"

/* Words of a stripe: its entries', and 'lost'. */
enum { WORDS = NEAP_STRIPE_LINES * NEAP_STRIPE_WAYS + 1, PROGRESS = (1 << NEAP_PROGRESS_BITS) - 1 };

static inline struct neap_stripe *stripe_at(const struct neap_slot *s, uint32_t i)
{
	char *base = (char *)neap_header_of(&s->limiter);
	return (struct neap_stripe *)(void *)(base + s->place.at) + i;
}

/* Lines that have entries to be used. */
static inline uint32_t lines_of(const struct neap_slot *s)
{
	return (s->stripes.places + NEAP_STRIPE_WAYS - 1) / NEAP_STRIPE_WAYS;
}

static inline uint32_t home_of(const struct neap_slot *s, uint64_t key)
{
	return (uint32_t)((key & UINT32_MAX) * lines_of(s) >> 32);
}

static inline int64_t serial_of(const struct neap_stripe *t)
{
	return t->progress >> NEAP_PROGRESS_BITS;
}

static inline int64_t seen_us(const struct neap_stripe *t, const struct neap_pair *p)
{
	return t->seen[p - t->pair] >> NEAP_STAMP_SHIFT;
}

static inline int is_idle(const struct neap_stripe *t, const struct neap_pair *p,
			  const struct neap_visit *v)
{
	return v->idle_us && v->now / 1000 - seen_us(t, p) >= v->idle_us;
}

/* Is there nothing in the entry, to who comes? */
static inline int is_free(const struct neap_stripe *t, const struct neap_pair *p,
			  const struct neap_visit *v)
{
	return p->word <= v->clock || is_idle(t, p, v);
}

static inline int32_t holder_of(const struct neap_slot *s, const struct neap_pair *p)
{
	return s->limiter.kind == NEAP_SEMAPHORE ? (int32_t)(p->word >> NEAP_HOLDER_SHIFT) : 0;
}

static inline int64_t permits_of(const struct neap_pair *p)
{
	return p->word & ((INT64_C(1) << NEAP_HOLDER_SHIFT) - 1);
}

#endif
