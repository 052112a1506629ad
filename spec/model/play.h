/* SPDX-License-Identifier: MIT */
/* play.h - threads, each with a few attempts at the same few words, for a scheduler to order.
 *
 * What one attempt is, how a thread performs its own, and what was granted; for the tests that look
 * at every order of their steps (steps.h). */
#ifndef PLAY_H
#define PLAY_H

#include "neap.h"
#include "steps.h"
#include "trial.h"

enum { WORDS = 3, ATTEMPTS = 2 };

extern const neap_ns NOW;   /* when all begins */

struct attempt {
	int64_t cost[WORDS];
	neap_ns now;
	neap_ns pauses;     /* it takes nothing, but extends a pause until then, the last word */
	int fills;          /* it takes nothing, but fills the first word, a rate, up to this - 1 */
	int alone;          /* its one term is no all-of */
	int gives;          /* what it got, back again */
	int settles;        /* as if it had never been */
	int granted;
};

struct script {
	struct neap_term term[WORDS];
	struct neap_all all;
	struct attempt attempt[ATTEMPTS];
	int attempts;
};

typedef neap_ns taker(const struct neap_all *all, const int64_t *cost, neap_ns now, int32_t *bound);

struct play {
	struct neap_limiter limiter[WORDS], fresh[WORDS];
	struct script script[STEPS_THREADS];
	int threads;
	taker *take;
	int deaths, fault;          /* see steps.h */
	int64_t held[WORDS];        /* permits, by those who have them in hand */
	int over;                   /* they have more than there are */
	int64_t orders;
};

extern struct play play;

void play_begin(void);
/* In every order with up to so many changes of thread, at most so many: how many there were. */
int64_t play_every_order(int switches, int64_t orders, void (*end)(void));
/* Make it: 1 when it was granted. */
int play_attempt(const struct script *s, const struct attempt *a, taker *take);
/* What an attempt asks of a word. */
int64_t play_asks(struct script *s, const struct attempt *a, int word);
/* A script of two or three terms in any order, for costs of 1 or 2, all at NOW. */
void play_any_script(struct dice *d, struct script *s);
int64_t *play_word(struct neap_limiter *l);

#endif
