/* SPDX-License-Identifier: MIT */
/* conditional_scenes.c - terms that depend on pauses, among those who ask otherwise.
 *
 * What a line of equals (property_conditional.c) does not show: others stand in the way when a pause
 * ends, and nobody gives anything back.
 */
#include "neap.h"
#include "trial.h"

#include <string.h>

struct scene {
	struct neap_limiter sem[3], when_on, pause;
	struct neap_engine *engine;
	struct neap_answer answer;
	struct neap_completion ended[8];
};

static void begin(struct scene *s, neap_ns pause_ends)
{
	memset(s, 0, sizeof *s);
	for (int i = 0; i < 3; i++) {
		s->sem[i].kind = NEAP_SEMAPHORE;
		neap_semaphore_init(&s->sem[i].as.semaphore, 1, 0);
	}
	s->pause.kind = NEAP_PAUSE;
	neap_pause_extend(&s->pause.as.pause, pause_ends);
	neap_conditional_init(&s->when_on, &(struct neap_conditional){
						  &s->sem[2], {&s->pause.as.pause, NULL}, 1, 0});
	s->engine = neap_engine_open(8, 0);
}

static int acquire(struct scene *s, struct neap_request *r, neap_ns now)
{
	r->cost[0] = 1;
	r->deadline = neap_never;
	if (neap_engine_acquire(s->engine, r, now, &s->answer))
		trial_fail("no memory");
	return s->answer.status;
}

/* At 'at', and not before, exactly this one is granted. */
static void expect_grant(struct scene *s, int64_t ticket, neap_ns at)
{
	neap_engine_advance(s->engine, at + 1000);
	int64_t n = neap_engine_drain(s->engine, s->ended, 8);
	if (n != 1 || s->ended[0].ticket != ticket || s->ended[0].at != at ||
	    s->ended[0].status != NEAP_GRANTED || neap_engine_check(s->engine))
		trial_fail("%ld ended; %ld at %ld, not %ld at %ld", n, s->ended[0].ticket,
			   s->ended[0].at, ticket, at);
	neap_engine_close(s->engine);
}

/* The urgent one wants the slot, too, and waits elsewhere; when the pause ends nobody wants it. */
static void beside_the_urgent(struct dice *d)
{
	(void)d;
	struct scene s;
	begin(&s, 10000);
	struct neap_term many[] = {{&s.sem[0], 1, 0, 0}, {&s.sem[1], 1, 0, 0}, {&s.when_on, 1, 0, 0}};
	struct neap_all all[4];
	neap_all_init(&all[0], many, 3);
	for (int i = 0; i < 3; i++)
		neap_all_init(&all[1 + i], &many[i], 1);
	struct neap_request urgent = {.all = &all[0]}, one = {.all = &all[1]}, two = {.all = &all[2]},
			    slot = {.all = &all[3]};
	acquire(&s, &one, 0);
	acquire(&s, &two, 0);
	acquire(&s, &urgent, 0);
	for (int i = 0; i < 8; i++) {
		struct neap_request *r = i % 2 ? &two : &one;
		neap_engine_give(s.engine, r, NEAP_SUCCESS, 0, 0);
		neap_engine_try(s.engine, r, 0, &s.answer);
		if ((s.answer.status == NEAP_GRANTED) != (i < 7))   /* from then on it is urgent */
			trial_fail("%d answers %d", i, s.answer.status);
	}
	if (acquire(&s, &slot, 1) != NEAP_WAITING)
		trial_fail("passes the urgent one");
	expect_grant(&s, s.answer.ticket, 10000);
}

/* Whoever asks the limiter plainly stands in another line. */
static void behind_a_plain_one(struct dice *d)
{
	(void)d;
	struct scene s;
	begin(&s, 10000);
	struct neap_term plain = {&s.sem[2], 1, 0, 0}, term = {&s.when_on, 1, 0, 0};
	struct neap_all all[2];
	neap_all_init(&all[0], &plain, 1);
	neap_all_init(&all[1], &term, 1);
	struct neap_request first = {.all = &all[0]}, second = {.all = &all[1]};
	if (acquire(&s, &first, 0) != NEAP_GRANTED || acquire(&s, &first, 0) != NEAP_WAITING ||
	    acquire(&s, &second, 0) != NEAP_WAITING)
		trial_fail("answers %d", s.answer.status);
	expect_grant(&s, s.answer.ticket, 10000);
	/* and hears what others give back */
	begin(&s, 10000);
	neap_all_init(&all[0], &plain, 1);
	neap_all_init(&all[1], &term, 1);
	acquire(&s, &first, 0);
	acquire(&s, &second, 0);
	neap_engine_advance(s.engine, 500);
	neap_engine_give(s.engine, &first, NEAP_SUCCESS, 0, 500);
	expect_grant(&s, s.answer.ticket, 500);
}

/* A queue's head asks nothing any more when the pause has ended. */
static void in_a_queue(struct dice *d)
{
	(void)d;
	struct scene s;
	begin(&s, 10000);
	struct neap_queue *q = neap_queue_open(8, NEAP_REJECT, 0);
	struct neap_term term = {&s.when_on, 1, 0, 0};
	struct neap_all all;
	neap_all_init(&all, &term, 1);
	struct neap_request r = {.all = &all, .queue = q};
	for (int i = 0; i < 4; i++)
		acquire(&s, &r, 0);
	neap_engine_advance(s.engine, 9999);
	if (neap_engine_drain(s.engine, s.ended, 8))
		trial_fail("too early");
	neap_engine_advance(s.engine, 20000);
	if (neap_engine_drain(s.engine, s.ended, 8) != 3 || s.ended[2].at != 10000 ||
	    neap_engine_check(s.engine))
		trial_fail("not all are granted when the pause ends");
	neap_engine_close(s.engine);
	neap_queue_close(q);
}

int main(void)
{
	trial_run("who is kept by the urgent one goes when the pause ends", beside_the_urgent);
	trial_run("and who stands behind one who asks plainly", behind_a_plain_one);
	trial_run("and a queue, whose heads ask nothing then", in_a_queue);
	return trial_verdict();
}
