/* SPDX-License-Identifier: MIT */
/* asked.h - a request made ready to be asked. Private to ring 1; asked.c has the essay. */
#ifndef NEAP_ASKED_H
#define NEAP_ASKED_H

#include "change.h"

struct neap_slot;
struct neap_stripe;

/* What a keyed limiter is for one key: a limiter, with the word that the table has for it. */
struct neap_face {
	struct neap_limiter limiter;
	struct neap_keyed *of;   /* NULL: another limiter stands in for it */
	uint64_t key;
	struct neap_stripe *stripe;   /* of a table that processes share, or NULL; of one such: */
	const struct neap_slot *slot; /* whose it is */
	struct neap_limiter *instead; /* where there is no room for the key; NULL: it is turned away */
	int64_t others;       /* permits of it that other processes hold */
	int32_t holder;       /* and who this one is */
	int64_t *word;        /* in the table; NULL: the key has none yet, or nobody has entered */
	int64_t clock;        /* up to here a word is as good as none */
	neap_ns room_at;      /* 0, or: there is no room for another key before this */
	neap_ns now;          /* of who asks */
};

struct neap_asked {
	const struct neap_all *all;     /* as it was built */
	const struct neap_all *faces;   /* what answers: 'all' itself, or 'own' */
	const int64_t *cost;
	const uint64_t *key;
	uint64_t on;                    /* bit i: term i is conditional, and its condition holds */
	neap_ns ends[NEAP_TERMS];       /* of those: when it ends */
	struct neap_all own;            /* keyed and conditional terms are resolved in it */
	int32_t count;                  /* of face[] */
	int8_t face_of[NEAP_TERMS];     /* of each term: its face, or -1 */
	struct neap_term term[NEAP_TERMS];
	struct neap_face face[NEAP_TERMS];
};

/* Who asks. A look leaves no trace; one who wants is seen, and keeps its entry from being idle; one
 * who gives back or corrects is not seen, but its word is brought to where it can be written. */
enum { NEAP_LOOK = 0, NEAP_WANT = 1, NEAP_GIVE = 2 };

/* Ready to be asked at 'now'. It holds until a table of one of its terms is used again. */
void neap_asked_ready(struct neap_asked *a, const struct neap_all *all, const int64_t *cost,
		      const uint64_t *key, neap_ns now, int how);
/* The same for who gives back or settles: what it was granted, under the conditions of then. */
void neap_asked_again(struct neap_asked *a, const struct neap_request *r, neap_ns now);
/* When term i, of which the faces ask 'cost', conforms, and its condition holds: as
 * neap_limiter_when, or when it has ended and less is asked. */
neap_ns neap_asked_when_on(const struct neap_asked *a, int32_t i, int64_t cost, neap_ns now);
/* The verbs of neap_all_..., and what becomes of a face is written into its table. To be taken,
 * nothing may have turned it away. What a key that is forgotten has out is not given back. */
neap_ns neap_asked_take(struct neap_asked *a, neap_ns now);
neap_ns neap_asked_claim(struct neap_asked *a, neap_ns now);
void neap_asked_give(struct neap_asked *a, int outcome, neap_ns at, neap_ns now);
void neap_asked_settle(struct neap_asked *a, const int64_t *used, neap_ns at, neap_ns now);

/* What is asked at an instant that is to come: conditions end until then. */
void neap_asked_later(struct neap_asked *a, neap_ns at, neap_ns now);
/* Charge now what conforms at 'at', and undo that before then. Rates are charged already. Nobody else
 * is at the limiters. */
void neap_asked_book(struct neap_asked *a, neap_ns at, neap_ns now);
void neap_asked_unbook(struct neap_asked *a, neap_ns at, neap_ns now);

static inline int neap_asked_is_keyed(const struct neap_all *all)
{
	return (all->kinds >> NEAP_KEYED & 1) != 0;
}

static inline int neap_asked_is_conditional(const struct neap_all *all)
{
	return (all->kinds >> NEAP_CONDITIONAL & 1) != 0;
}

/* Is every term what it says? */
static inline int neap_asked_is_plain(const struct neap_all *all)
{
	return !(all->kinds & (1u << NEAP_KEYED | 1u << NEAP_CONDITIONAL));
}

/* May term i ask otherwise at another time? */
static inline int neap_asked_may_change(const struct neap_asked *a, int32_t i)
{
	return a->faces != a->all && a->all->terms[i].limiter->kind == NEAP_CONDITIONAL;
}

static inline int neap_asked_is_on(const struct neap_asked *a, int32_t i)
{
	return (int)(a->on >> i & 1);
}

/* When term i, of which the faces ask 'cost', conforms, whether its condition holds or it has none. */
static inline neap_ns neap_asked_when(const struct neap_asked *a, int32_t i, int64_t cost,
				      neap_ns now)
{
	if (neap_asked_is_on(a, i))
		return neap_asked_when_on(a, i, cost, now);
	return neap_limiter_when(a->faces->terms[i].limiter, cost, now);
}

/* Before what one who waits for term i stands: a limiter, conditional or not, and of a keyed one the
 * key. A key that has a limiter of its own stands for that. */
static inline const struct neap_limiter *neap_asked_place(const struct neap_asked *a, int32_t i)
{
	const struct neap_limiter *l = a->all->terms[i].limiter;
	return l->kind == NEAP_KEYED && a->face_of[i] < 0 ? a->faces->terms[i].limiter : l;
}

static inline uint64_t neap_asked_place_tag(const struct neap_asked *a, int32_t i)
{
	return a->faces == a->all || a->face_of[i] < 0 ? 0 : a->face[a->face_of[i]].key;
}

/* When there is room for term i's key; 0: there is. */
static inline neap_ns neap_asked_room_at(const struct neap_asked *a, int32_t i)
{
	return a->faces == a->all || a->face_of[i] < 0 ? 0 : a->face[a->face_of[i]].room_at;
}

/* ---- faces (keyed.c, faces.c) ---- */

/* The limiter that 'k' is for 'key', in *f, or elsewhere. */
struct neap_limiter *neap_keyed_face(struct neap_face *f, struct neap_keyed *k, uint64_t key,
				     neap_ns now, int how);
/* It is about to be asked for: the key's place in the table is fetched meanwhile. */
void neap_keyed_hint(const struct neap_keyed *k, uint64_t key);
/* An entry in the table for one that has none; NULL when there is no room. */
int64_t *neap_face_entry(struct neap_face *f);
/* Write what became of it into the table, if it has a place there. */
void neap_face_write(struct neap_face *f);
/* How many of its permits this process can give back. */
int64_t neap_face_out(const struct neap_face *f);
/* The rest of one whose table processes share. Make it what f->key has there at this moment. */
struct neap_limiter *neap_face_share(struct neap_face *f, neap_ns now, int how);
/* Nobody else is at its key from here on, and it is as it is then. Several in this order. */
int neap_face_before(const struct neap_face *f, const struct neap_face *g);
void neap_face_enter(struct neap_face *f, neap_ns now);
void neap_face_leave(struct neap_face *f);

/* Where those may stand who wait for a key of 'k': before the limiter it has of its own, or NULL; or
 * before the one that strangers share. */
struct neap_limiter *neap_keyed_own(const struct neap_keyed *k, uint64_t key);
const struct neap_limiter *neap_keyed_shared(const struct neap_keyed *k);

/* Is one word all that a key needs? */
static inline int neap_is_word(const struct neap_limiter *l)
{
	return l->kind == NEAP_GCRA || l->kind == NEAP_SEMAPHORE || l->kind == NEAP_PAUSE;
}

static inline int64_t *neap_face_word(struct neap_limiter *l) { return &l->as.word; }

#endif
