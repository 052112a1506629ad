/* SPDX-License-Identifier: MIT */
/* steps.c - threads that take turns, one atomic operation at a time, in every order there is.
 *
 * Between two atomic operations on shared words a thread does nothing that another could see, so
 * it is enough to decide before each of them who goes next. Threads are coroutines here. An order
 * is the list of those decisions. To find the next one, the last decision that had another choice
 * left is changed and what follows is made anew: a walk through the tree of orders, depth first,
 * with no memory but one path.
 *
 *     A load   A swap   B load  ...      decision  0 0 1 ...     of    2 2 2 ...
 *
 * Orders are many, and most mistakes need few changes of thread (Musuvathi and Qadeer 2007): so
 * a thread goes on until it is done, except 'switches' times.
 *
 * One that waits for a word that another holds would ask for ever: it is blocked until the word
 * changes. From a robust word it may take the hold away as well, at any time: for others that is as
 * if they had been stopped for as long as a waiter is patient.
 */
#include "steps.h"

#include "change.h"

#include <stdlib.h>
#include <ucontext.h>

enum { STACK = 65536, DECISIONS = 4096, STEPS_MOST = 100000 };

static struct {
	ucontext_t scheduler, thread[STEPS_THREADS];
	char stack[STEPS_THREADS][STACK];
	int fate[STEPS_THREADS], running;   /* -1: nobody, and nothing stops */
	int64_t *waits_for[STEPS_THREADS];
	int robust[STEPS_THREADS];
	struct steps_play play;
	struct { int choice, of; } decision[DECISIONS];
	int decisions, depth;
} steps = {.running = -1};

static void stop(void)
{
	if (steps.running >= 0)
		swapcontext(&steps.thread[steps.running], &steps.scheduler);
}

int64_t steps_load(const int64_t *word)
{
	stop();
	return *word;
}

void steps_store(int64_t *word, int64_t value)
{
	stop();
	if (steps.play.fault != STEPS_NEVER_BACK || value != (*word & INT64_MAX))
		*word = value;
}

int steps_swap(int64_t *word, int64_t *from, int64_t to)
{
	stop();
	if (*word != *from) {
		*from = *word;
		return 0;
	}
	if (to < 0 && steps.play.fault == STEPS_NEVER_HOLDS)
		return 1;
	*word = to;
	return 1;
}

/* Instead of the one in word.c. */
int64_t neap_word_wait(int64_t *word, int robust)
{
	if (steps.running >= 0) {
		steps.waits_for[steps.running] = word;
		steps.robust[steps.running] = robust;
		stop();
		steps.waits_for[steps.running] = NULL;
	}
	return *word &= INT64_MAX;
}

static void run(void)
{
	int me = steps.running;   /* -1: nobody, and nothing stops */
	steps.play.body(me);
	steps.fate[me] = STEPS_DONE;
}

static int decide(int of)
{
	if (steps.depth == DECISIONS)
		abort();
	if (steps.depth == steps.decisions) {
		steps.decision[steps.decisions].choice = 0;
		steps.decision[steps.decisions++].of = of;
	}
	return steps.decision[steps.depth++].choice;
}

static int is_blocked(int i) { return steps.waits_for[i] && *steps.waits_for[i] < 0; }

/* The next to run: choice 0 is to go on with 'last', if it can; to take a hold away is the last. */
static int choose(int last, int switches)
{
	int able[STEPS_THREADS], count = 0, goes_on = 0;
	if (last >= 0 && !steps.fate[last] && !is_blocked(last)) {
		able[count++] = last;
		goes_on = 1;
	}
	for (int i = 0; i < steps.play.threads; i++)
		if (!steps.fate[i] && !is_blocked(i) && !(goes_on && i == last))
			able[count++] = i;
	for (int i = 0; i < steps.play.threads; i++)
		if (!steps.fate[i] && is_blocked(i) && steps.robust[i])
			able[count++] = i;
	if (count == 0)
		return -1;
	if (switches == STEPS_IN_TURN)   /* the next after last */
		for (int i = 1; i <= steps.play.threads; i++)
			for (int j = 0; j < count; j++)
				if (able[j] == (last + i) % steps.play.threads)
					return able[j];
	return able[goes_on && !switches ? 0 : decide(count)];
}

static void line_up(int i)
{
	getcontext(&steps.thread[i]);
	steps.thread[i].uc_stack.ss_sp = steps.stack[i];
	steps.thread[i].uc_stack.ss_size = STACK;
	steps.thread[i].uc_link = &steps.scheduler;
	makecontext(&steps.thread[i], run, 0);
	steps.fate[i] = 0;
	steps.waits_for[i] = NULL;
}

static void one_order(void)
{
	int switches = steps.play.switches, deaths = steps.play.deaths;
	for (int i = 0; i < steps.play.threads; i++)
		line_up(i);
	steps.depth = 0;
	for (int last = -1, next, n = 0; n < STEPS_MOST; n++, last = next) {
		next = choose(last, switches);
		if (next < 0)
			break;
		int gave_way = last >= 0 && next != last && !steps.fate[last] && !is_blocked(last);
		if (switches > 0)
			switches -= gave_way;
		steps.running = next;
		swapcontext(&steps.scheduler, &steps.thread[next]);
		if (deaths && !steps.fate[next] && decide(2)) {
			steps.fate[next] = STEPS_DIED;
			deaths--;
		}
	}
	for (int i = 0; i < steps.play.threads; i++)
		steps.fate[i] = steps.fate[i] ? steps.fate[i] : STEPS_STUCK;
	steps.running = -1;
}

int steps_fate(int thread) { return steps.fate[thread]; }

int64_t steps_every_order(const struct steps_play *play)
{
	int64_t count = 0;
	steps.play = *play;
	steps.decisions = 0;
	do {
		steps.running = -1;
		play->begin();
		one_order();
		play->end();
		count++;
		while (steps.decisions) {
			int last = steps.decisions - 1;
			if (++steps.decision[last].choice < steps.decision[last].of)
				break;
			steps.decisions--;
		}
	} while (steps.decisions && count < play->orders);
	return count;
}
