/* SPDX-License-Identifier: MIT */
/* per_key.c - a limit per key for millions of them, against the memory they lie in.
 *
 *   per_key_10k, _1m, _10m   one granted take on a key picked at random, by the engine: its text is
 *                            hashed, its word found, asked, and written back; _zipf: few keys are
 *                            picked often; _table: the same without the engine and its limiter
 *   per_key_bytes            memory for each of as many keys as were announced
 *   per_key_churn            a new key where all others are in use or were, and time has made
 *                            room; _evict: where none has, and the least recently seen goes;
 *                            against a take on a key that is there, in a table as large
 *   per_key_pause            the longest calls while a table grows to 10^7 keys
 *
 * A take cannot be faster than the memory its word lies in. So the reference is one step in a
 * cycle of cache lines, in random order and as much memory in all: each address comes from the
 * line before. Texts are written beforehand, for in life they have just come out of a socket.
 */
#include "neap.h"
#include "race.h"

#include <math.h>

enum { ROUNDS = 41, CALLS = 4096, BATCHES = 8, TEXT = 16 };

static const uint8_t secret[16] = "fifteen letters";
static uint64_t seed = 1;

/* ---- one dependent random access ---- */

struct step { _Alignas(64) struct step *next; };

static struct step *cycle_open(int64_t bytes)
{
	int64_t n = bytes / (int64_t)sizeof(struct step);
	struct step *s = aligned_alloc(sizeof *s, (size_t)n * sizeof *s);
	if (!s)
		abort();
	for (int64_t i = 0; i < n; i++)
		s[i].next = &s[i];
	for (int64_t i = n - 1; i > 0; i--) {   /* Sattolo: one cycle through all */
		int64_t j = (int64_t)(race_random(&seed) % (uint64_t)i);
		struct step *next = s[i].next;
		s[i].next = s[j].next;
		s[j].next = next;
	}
	return s;
}

static struct step *volatile last_step;

static double walk(void)
{
	struct step *s = last_step;
	int64_t start = race_clock();
	for (int i = 0; i < CALLS * BATCHES; i++)
		s = s->next;
	last_step = s;
	return (double)(race_clock() - start) / CALLS / BATCHES;
}

/* ---- keys ---- */

static char text[CALLS][TEXT];
static int64_t keys;      /* how many there are */
static uint64_t fresh;    /* numbers from here on are nobody's */

static void write_text(char *to, uint64_t number)
{
	for (int i = TEXT; i-- > 0; number >>= 4)
		to[i] = "0123456789abcdef"[number & 15];
}

static uint64_t uniform(void) { return race_random(&seed) % (uint64_t)keys; }

/* The r-th key is picked with a probability of 1 / r, nearly. */
static uint64_t zipf(void)
{
	double u = (double)(race_random(&seed) >> 11) * 0x1p-53;
	return (uint64_t)exp(u * log((double)keys)) - 1;
}

static uint64_t unknown(void) { return fresh++; }

/* ---- takes ---- */

static struct neap_engine *engine;
static struct neap_limiter like, keyed = {.kind = NEAP_KEYED};
static struct neap_term term = {&keyed, 1, 0, 0};
static struct neap_all all;
static neap_ns now, tick;   /* and how much later it is with each take */

static void take(const char *key)
{
	struct neap_request r = {.all = &all, .cost = {1}, .key = {neap_hash(secret, key, TEXT)}};
	struct neap_answer a;
	neap_engine_try(engine, &r, now += tick, &a);
	if (a.status != NEAP_GRANTED)
		abort();
}

static struct neap_keys *table;

static void take_bare(const char *key)
{
	struct neap_gcra g = like.as.gcra;
	int64_t *word = neap_keys_at(table, neap_hash(secret, key, TEXT), now);
	if (!word)
		abort();
	g.tat = *word;
	if (neap_gcra_take(&g, 1, now) > now)
		abort();
	*word = g.tat;
}

static double timed(void (*one)(const char *key), uint64_t (*pick)(void))
{
	int64_t sum = 0;
	for (int n = 0; n < BATCHES; n++) {
		for (int i = 0; i < CALLS; i++)
			write_text(text[i], pick());
		int64_t start = race_clock();
		for (int i = 0; i < CALLS; i++)
			one(text[i]);
		sum += race_clock() - start;
	}
	return (double)sum / CALLS / BATCHES;
}

static void open_keyed(int64_t most, int full, neap_ns period_ns)
{
	neap_gcra_init(&like.as.gcra, 1, period_ns, 1 << 20);
	like.kind = NEAP_GCRA;
	keyed.as.keyed = neap_keyed_open(&like, most, full, 0, secret);
	if (!keyed.as.keyed || neap_all_init(&all, &term, 1))
		abort();
	fresh = 0;
}

static void fill(void (*one)(const char *key), int64_t count)
{
	char key[TEXT];
	for (int64_t i = 0; i < count; i++) {
		write_text(key, unknown());
		one(key);
	}
}

static struct race race;

static void report(const char *name, const char *what, int subject, const char *target)
{
	char text_of_both[32];
	snprintf(text_of_both, sizeof text_of_both, "%s%s", name, what);
	race_report(&race, subject, text_of_both, "ns", 1, "random-access", target);
}

static void takes_at(const char *name, int64_t count, const char *target)
{
	struct neap_keyed_stats stats;
	keys = count;
	open_keyed(count, NEAP_REFUSE, INT64_C(1) << 40);
	fill(take, count);
	neap_keyed_stats(keyed.as.keyed, &stats);
	struct step *cycle = last_step = cycle_open(stats.bytes);
	for (race.rounds = 0; race.rounds < ROUNDS; race.rounds++) {
		race.time[0][race.rounds] = timed(take, uniform);
		race.time[1][race.rounds] = walk();
		race.time[2][race.rounds] = timed(take, zipf);
	}
	report(name, "", 0, target);
	report(name, "_zipf", 2, target);
	if (count == 1000000)
		race_line("per_key_bytes", (double)stats.bytes / (double)count, "bytes",
			  (double)stats.bytes / (double)count / 16, "16-bytes", "<=1.5");
	neap_keyed_close(keyed.as.keyed);

	table = neap_keys_open(count, secret);
	if (!table)
		abort();
	fresh = 0;
	fill(take_bare, count);
	for (race.rounds = 0; race.rounds < ROUNDS; race.rounds++) {
		race.time[0][race.rounds] = timed(take_bare, uniform);
		race.time[1][race.rounds] = walk();
	}
	report(name, "_table", 0, NULL);
	neap_keys_close(table);
	free(cycle);
}

/* New keys keep coming, each is good for a while, and as many go as come: time makes room. */
static void churn(int64_t count)
{
	static struct race late;
	neap_ns step = 1000, life = count * step;
	keys = count;
	open_keyed(count, NEAP_REFUSE, INT64_C(1) << 40);
	fill(take, count);
	struct neap_keyed *still = keyed.as.keyed;
	open_keyed(count, NEAP_REFUSE, life);
	struct neap_keyed *moving = keyed.as.keyed;
	tick = step;
	fill(take, 3 * count);
	for (late.rounds = 0; late.rounds < ROUNDS; late.rounds++) {
		keyed.as.keyed = moving;
		tick = step;
		late.time[0][late.rounds] = timed(take, unknown);
		keyed.as.keyed = still;
		tick = 0;
		late.time[1][late.rounds] = timed(take, uniform);
	}
	race_report(&late, 0, "per_key_churn", "ns", 1, "hit", "<=1.5");
	neap_keyed_close(moving);
	neap_keyed_close(still);
}

static uint64_t recent(void) { return fresh - 1 - uniform() / 2; }

/* New keys keep coming, and time makes no room: the least recently seen goes. */
static void evict(int64_t count)
{
	keys = count;
	open_keyed(count, NEAP_LEAST_RECENT, INT64_C(1) << 40);
	fill(take, 3 * count);
	for (race.rounds = 0; race.rounds < ROUNDS; race.rounds++) {
		race.time[0][race.rounds] = timed(take, unknown);
		race.time[1][race.rounds] = timed(take, recent);
	}
	race_report(&race, 0, "per_key_evict", "ns", 1, "hit", NULL);
	neap_keyed_close(keyed.as.keyed);
}

/* Each call by itself, while a table grows to 'count'. Three times the same, and of each call the
 * shortest: what a neighbour on the machine does is not the same every time. */
static void pauses(int64_t count)
{
	float *took = malloc((size_t)count * sizeof *took);
	double *sorted = malloc((size_t)count * sizeof *sorted);
	if (!took || !sorted)
		abort();
	for (int n = 0; n < 3; n++) {
		char key[TEXT];
		open_keyed(count, NEAP_REFUSE, INT64_C(1) << 40);
		for (int64_t i = 0; i < count; i++) {
			write_text(key, unknown());
			int64_t start = race_clock();
			take(key);
			float us = (float)(race_clock() - start) / 1000;
			took[i] = n && took[i] < us ? took[i] : us;
		}
		neap_keyed_close(keyed.as.keyed);
	}
	for (int64_t i = 0; i < count; i++)
		sorted[i] = (double)took[i];
	double most = race_quantile(sorted, count, 0.999);
	race_line("per_key_pause", most, "us", most / 100, "100us,p99.9", "<=1.0");
	most = sorted[count - 1];
	race_line("per_key_pause_max", most, "us", most / 100, "100us,max", "<=1.0");
	free(took);
	free(sorted);
}

int main(void)
{
	engine = neap_engine_open(1000, 0);
	if (!engine)
		abort();
	now = 1000;
	takes_at("per_key_10k", 10000, NULL);
	takes_at("per_key_1m", 1000000, "<=1.15");
	takes_at("per_key_10m", 10000000, "<=1.15");
	churn(1000000);
	evict(1000000);
	pauses(10000000);
	neap_engine_close(engine);
	return 0;
}
