/* SPDX-License-Identifier: MIT */
/* engine.h - inside the engine. Private to ring 1: ticket.c, turn.c and engine.c share it. */
#ifndef NEAP_ENGINE_H
#define NEAP_ENGINE_H

#include "line.h"

/* What a waiter's record is in. ENDED + status once it has ended. */
enum { FREE, WAITING, SLEEPING, ENDED };

struct neap_engine {
	struct neap_lines lines;
	struct neap_wheel *wheel;
	neap_ns at;                 /* all that was due up to here has happened */
	uint64_t arrival;           /* the last one, see ticket.c */
	uint32_t waiters_max;
	uint32_t untouched;         /* records from here on were never used */
	uint32_t free, free_last;   /* list, by next, the one free longest first */
	uint32_t ended, ended_last; /* list, by next, in the order it happened */
	neap_ns late_ns, grace_ns;  /* see late.c */
	uint32_t dirty;             /* posts: the heap's first, see turn.c */
	struct neap_booking *booked; /* by instant, the first first; see book.c */
	neap_ns book_due;           /* its instant */
	struct neap_engine_stats stats;
};

static inline struct neap_waiter *waiter(struct neap_engine *e, uint32_t name)
{
	return neap_waiter_at(&e->lines, name);
}

/* ---- book.c ---- */

/* The calls come that are booked for up to 'now'. */
void neap_book_come(struct neap_engine *e, neap_ns now);
void neap_book_close(struct neap_engine *e);
int neap_book_check(const struct neap_engine *e);

/* ---- ticket.c ---- */

/* A record to fill, or 0 when all are taken. */
uint32_t neap_ticket_begin(struct neap_engine *e);
int64_t neap_ticket_of(struct neap_engine *e, uint32_t name);
/* Whose ticket it is, ended or not, until it is drained; 0 for one that is unknown. */
uint32_t neap_ticket_find(struct neap_engine *e, int64_t ticket);
/* What the next one's arrival will be. */
uint64_t neap_ticket_arrival(const struct neap_engine *e);
/* It waits for what 'r' asks, and the answer says so. */
void neap_ticket_wait(struct neap_engine *e, uint32_t name, const struct neap_request *r,
		      struct neap_answer *a);
/* Make a completion of it, now, granted under these conditions. It stands in no line any more. */
void neap_ticket_end(struct neap_engine *e, uint32_t name, int status, int32_t bound, uint64_t on);

/* ---- turn.c ---- */

/* Let all that is due by 'now' happen. Answers the engine's now. */
neap_ns neap_turn_to(struct neap_engine *e, neap_ns now);
/* A line of one, armed where it binds; 'bound' is the term that refused. There is room for both
 * records. */
void neap_turn_begin_line(struct neap_engine *e, const struct neap_asked *a, uint32_t costs,
			  uint32_t name, int32_t bound);
/* Let a line stand before the limiter of a term. 1 when it is first there, and has no due yet. */
int neap_turn_stand(struct neap_engine *e, uint32_t line, const struct neap_asked *a, int32_t term);
/* The first at a post is to be asked when _settle comes. */
void neap_turn_mark(struct neap_engine *e, uint32_t post);
/* The same, or the post is taken away: the line that was first has left it unasked. */
void neap_turn_vacated(struct neap_engine *e, uint32_t post);
/* Those whom the urgent one may hold up, or did, are to be asked. */
void neap_turn_ask_held_up(struct neap_engine *e);
/* Nobody is urgent any more. */
void neap_turn_relieve(struct neap_engine *e);
/* Set a waiter's timer to what it is to be looked at for next. */
void neap_turn_arm(struct neap_engine *e, uint32_t name);
/* Whoever waits for term i of 'a' is to be asked anew, when _settle comes. */
void neap_turn_ask_anew(struct neap_engine *e, const struct neap_asked *a, int32_t i);
/* The same for all who wait for a key of a keyed limiter, be it for one of its own or for the one
 * that strangers share; and for all who wait for a limiter, whatever their keys. */
void neap_turn_ask_key_anew(struct neap_engine *e, const struct neap_limiter *l, uint64_t key);
void neap_turn_ask_all_anew(struct neap_engine *e, const struct neap_limiter *l);
void neap_turn_settle(struct neap_engine *e);
/* End one who waits otherwise than by a grant; whom that lets go is asked when _settle comes. */
void neap_turn_leave(struct neap_engine *e, uint32_t name, int status);
/* The same, and _settle. */
void neap_turn_drop(struct neap_engine *e, uint32_t name, int status);

/* ---- late.c ---- */

/* It is 'now', and nothing has happened since e->at. */
void neap_late_jump(struct neap_engine *e, neap_ns now);

/* ---- front.c ---- */

/* The verbs of neap_engine_..., for requests that name a queue; time has come to e->at. They leave
 * in 'asked' what they asked. */
void neap_front_peek(struct neap_engine *e, const struct neap_request *r, struct neap_asked *asked,
		     struct neap_answer *a);
void neap_front_try(struct neap_engine *e, const struct neap_request *r, struct neap_asked *asked,
		    struct neap_answer *a);
int neap_front_acquire(struct neap_engine *e, const struct neap_request *r,
		       struct neap_asked *asked, struct neap_answer *a);
/* Let the line of a queue, which stands nowhere, stand where its head is held up. A head that may go
 * is asked: by the caller when it is first at 'asking', or else when _settle comes. */
void neap_front_stand(struct neap_engine *e, uint32_t line, uint32_t asking);
/* By which of its own terms a waiter is held up. */
int32_t neap_front_term(const struct neap_engine *e, uint32_t name);

/* ---- stats.c ---- */

/* A request was answered. */
void neap_stats_answer(struct neap_stats *s, const struct neap_asked *asked,
		       const struct neap_answer *a);
/* A ticket ended that stood in line. 'asked' may be NULL when no term decided that. */
void neap_stats_end(struct neap_stats *s, const struct neap_asked *asked, int status, int32_t bound,
		    neap_ns wait_ns);
void neap_stats_settle(struct neap_stats *s, const struct neap_request *r, const int64_t *used);

#endif
