/* SPDX-License-Identifier: MIT */
/* asked.h - a request made ready to be asked. Private to ring 1; keyed.c has the essay. */
#ifndef NEAP_ASKED_H
#define NEAP_ASKED_H

#include "neap.h"

/* What a keyed limiter is for one key: a limiter, with the word that the table has for it. */
struct neap_face {
	struct neap_limiter limiter;
	struct neap_keyed *of;
	uint64_t key;
	int64_t *word;        /* in the table; NULL: the key has none yet */
	int64_t clock;        /* up to here a word is as good as none */
	neap_ns room_at;      /* 0, or: there is no room for another key before this */
};

struct neap_asked {
	const struct neap_all *all;     /* as it was built */
	const struct neap_all *faces;   /* what answers: 'all' itself, or 'own' */
	const int64_t *cost;
	const uint64_t *key;
	struct neap_all own;            /* keyed terms have their faces in it */
	int32_t count;                  /* of face[] */
	int8_t face_of[NEAP_TERMS];     /* of each term: its face, or -1 */
	struct neap_term term[NEAP_TERMS];
	struct neap_face face[NEAP_TERMS];
};

/* Who asks. A look leaves no trace; one who wants is seen, and keeps its entry from being idle. */
enum { NEAP_LOOK = 0, NEAP_WANT = 1 };

/* Ready to be asked at 'now'. It holds until a table of one of its terms is used again. */
void neap_asked_ready(struct neap_asked *a, const struct neap_all *all, const int64_t *cost,
		      const uint64_t *key, neap_ns now, int how);
/* The verbs of neap_all_..., and what becomes of a face is written into its table. To be taken,
 * nothing may have turned it away. What a key that is forgotten has out is not given back. */
neap_ns neap_asked_take(struct neap_asked *a, neap_ns now);
neap_ns neap_asked_claim(struct neap_asked *a, neap_ns now, int32_t *bound);
void neap_asked_give(struct neap_asked *a, int outcome, neap_ns at, neap_ns now);
void neap_asked_settle(struct neap_asked *a, const int64_t *used, neap_ns at, neap_ns now);

static inline int neap_asked_is_keyed(const struct neap_all *all)
{
	return (all->kinds >> NEAP_KEYED & 1) != 0;
}

/* Before what one who waits for term i stands: a limiter, and of a keyed one the key. */
static inline const struct neap_limiter *neap_asked_place(const struct neap_asked *a, int32_t i)
{
	return (a->faces == a->all || a->face_of[i] < 0 ? a->faces : a->all)->terms[i].limiter;
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

#endif
