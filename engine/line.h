/* SPDX-License-Identifier: MIT */
/* line.h - who waits, in which order. Private to ring 1; line.c has the essay. */
#ifndef NEAP_LINE_H
#define NEAP_LINE_H

#include "asked.h"
#include "heap.h"

/* ---- roster: records found by a pointer and a tag, named by small integers from 1 ---- */

struct neap_key {
	const void *of;       /* NULL: a free record */
	uint64_t tag;
	uint32_t next_free;
};

struct neap_roster {
	char *record;         /* [room + 1] of 'size' bytes, each beginning with its key */
	uint32_t *bucket;     /* [buckets] record names, 0 is free */
	uint32_t *old;        /* [olds] smaller ones, those from 'moved' on in use; NULL: none */
	size_t size;
	uint32_t room, used, free, count, buckets, olds, moved;
};

void neap_roster_init(struct neap_roster *r, size_t size);
void neap_roster_free(struct neap_roster *r);
/* Room for 'count' records: NEAP_OK or NEAP_ENOMEM. Records may move, names do not. */
int neap_roster_reserve(struct neap_roster *r, uint32_t count);
/* The record's name, or 0. */
uint32_t neap_roster_find(const struct neap_roster *r, const void *of, uint64_t tag);
/* A new record, zeroed but for its key. There must be room, and none of that key. */
uint32_t neap_roster_add(struct neap_roster *r, const void *of, uint64_t tag);
void neap_roster_remove(struct neap_roster *r, uint32_t name);
int64_t neap_roster_bytes(const struct neap_roster *r);   /* memory held */
int neap_roster_check(const struct neap_roster *r);

/* ---- lines ---- */

/* What every step looks at comes first, so that one line of memory usually serves. */
struct neap_waiter {
	neap_ns deadline;       /* of a sleeper: when to wake; once ended: when that was */
	uint64_t arrival;       /* see ticket.c; once ended: neap_completion.on */
	uint32_t next, prev;    /* in its line, oldest first; names are index + 1. In a queue's,
				 * prev is its place there */
	uint32_t line;
	uint32_t generation;
	uint32_t next_due;      /* of those due at one instant, see turn.c */
	int16_t state;          /* see engine.h */
	int16_t bound;
	int64_t cost[NEAP_COSTS];   /* of a plain line those in use; the others, and out of line, 0 */
};

struct neap_line {
	struct neap_key key;            /* of: the all; tag: see neap_line_tag. Or a queue, and 0 */
	struct neap_queue *queue;       /* NULL: a plain line */
	const struct neap_all *all;     /* these three: what its waiters ask, or a queue's head */
	uint32_t costs;                 /* in use, one bit each; of a queue 0 */
	uint64_t keys[NEAP_KEYS];
	neap_sum queued[NEAP_COSTS];    /* sum of its waiters' costs; of a queue 0 */
	struct neap_node node;          /* in the post's heap, by its head's arrival */
	uint32_t head, tail, count;
	uint32_t post;                  /* where it stands; 0 nowhere */
	int32_t term;                   /* by which of its terms */
	int32_t alone;                  /* 1: it asks no other limiter, so it stays there */
	int32_t moves;                  /* of its head, from post to post */
};

struct neap_post {
	struct neap_key key;    /* of: the limiter; tag: of a keyed one the key */
	neap_sum queued;        /* what the waiters of lines that ask it alone ask of it */
	neap_ns due;            /* when its first line is asked again; neap_on_give */
	int64_t waiting;        /* waiters in the lines standing here */
	uint32_t first;         /* the line whose head came first: root of the heap */
	uint32_t dirty;         /* see turn.c */
	struct neap_node turn;  /* among dirty posts */
	int32_t conditional;    /* 1: its limiter is, and it is among those of such ones: */
	uint32_t next, prev;
};

/* What the urgent one (turn.c) asks of a limiter, and one of its keys. */
struct neap_want {
	const struct neap_limiter *of;
	uint64_t tag;
	int64_t cost;
};

struct neap_lines {
	struct neap_waiter *waiter;   /* [waiters_max] */
	struct neap_roster line, post;
	uint32_t conditional;         /* posts of conditional limiters: a list, by next */
	uint32_t urgent;              /* waiter; 0: nobody is */
	int32_t wants;                /* the urgent one's, in want[] */
	struct neap_want want[NEAP_TERMS];
};

static inline struct neap_waiter *neap_waiter_at(const struct neap_lines *s, uint32_t name)
{
	return &s->waiter[name - 1];
}

static inline struct neap_line *neap_line_at(const struct neap_lines *s, uint32_t name)
{
	return (struct neap_line *)(void *)(s->line.record + name * sizeof(struct neap_line));
}

static inline struct neap_post *neap_post_at(const struct neap_lines *s, uint32_t name)
{
	return (struct neap_post *)(void *)(s->post.record + name * sizeof(struct neap_post));
}

static inline struct neap_line *neap_line_of(const struct neap_lines *s, uint32_t waiter)
{
	return neap_line_at(s, neap_waiter_at(s, waiter)->line);
}

/* At the end of a line. */
void neap_line_join(struct neap_lines *s, uint32_t line, uint32_t waiter);
/* Out of its line, from anywhere, which keeps its place; how it ends matters to a queue. The line
 * may be empty then. A queue's line may have another head: if it is the head who leaves, it does
 * not stand. */
void neap_line_leave(struct neap_lines *s, uint32_t waiter, int status);
/* Into a queue's line, by the place it has there... */
void neap_line_enter(struct neap_lines *s, uint32_t line, uint32_t waiter, uint32_t place);
/* ... which calls this waiter next; */
uint32_t neap_line_next(const struct neap_line *line);
/* and then that is its head. It does not stand. */
void neap_line_turn(struct neap_lines *s, uint32_t line);
/* What a waiter asks, its head or not. */
const struct neap_all *neap_line_asks(const struct neap_lines *s, uint32_t waiter);
/* A line that has waiters stands at a post by one of its terms, in the order of arrival. */
void neap_line_stand(struct neap_lines *s, uint32_t line, uint32_t post, int32_t term);
void neap_line_step_back(struct neap_lines *s, uint32_t line);
/* What the waiters of a line ask, together, of the limiter of term i. */
neap_sum neap_line_queued(const struct neap_line *line, int32_t term);
int neap_lines_check(const struct neap_lines *s);

/* The costs in use that are left, one by one: for (left = costs; left; left &= left - 1). */
static inline int neap_next_cost(uint32_t left) { return __builtin_ctz(left); }

/* By what a line of an all is known: the costs in use, and the keys of keyed terms. Those are
 * hashes under a secret, so that two lines meet in one as seldom as two keys do. */
uint64_t neap_line_tag(const struct neap_all *all, uint32_t costs, const uint64_t *key);

/* ---- questions (ask.c) ---- */

/* The post of those who wait for term i; 0 when nobody does. */
uint32_t neap_post_of(const struct neap_lines *s, const struct neap_asked *a, int32_t i);

struct neap_verdict {
	neap_ns at;       /* up to now: it may go */
	int32_t term;     /* what binds, or -1 */
	int32_t shed;     /* nobody waits for that */
};

/* When could one who arrived at 'arrival' go? neap_on_give also stands for "somebody before me is
 * there". It may be sooner when the urgent one has been asked or is gone. */
struct neap_verdict neap_lines_decide(const struct neap_lines *s, const struct neap_asked *a,
				      uint64_t arrival, neap_ns at);
/* The earliest instant for one who would join the line of that tag at 'now', what binds it (*bound
 * stays when nothing does) and how many go first. */
neap_ns neap_lines_predict(const struct neap_lines *s, const struct neap_asked *a, uint64_t tag,
			   neap_ns now, int32_t *bound, int64_t *ahead);

/* What a queue knows of those who go before a newcomer for certain. */
struct neap_before {
	neap_sum queued[NEAP_COSTS];   /* the costs of those that ask the same */
	int64_t count;
	uint32_t line;                 /* the queue's; 0: there is none */
	uint32_t left;                 /* the post where it has stepped back, being the first; or 0 */
	int32_t was_urgent;            /* 1: who has stepped back was; for its sake others wait */
	int32_t head_goes;             /* 1: its head does */
};
/* The same for one who would wait in a queue. */
neap_ns neap_lines_predict_in(const struct neap_lines *s, const struct neap_asked *a,
			      const struct neap_before *b, neap_ns now, int32_t *bound,
			      int64_t *ahead);
/* The term of 'a' for which one waits at a post; when none does, the first that is asked at all. */
int32_t neap_term_at(const struct neap_lines *s, const struct neap_asked *a, uint32_t post);

#endif
