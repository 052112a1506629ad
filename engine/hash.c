/* SPDX-License-Identifier: MIT */
/* hash.c - what a key is called where its length does not matter.
 *
 * SipHash-1-3 (J.-P. Aumasson, D. J. Bernstein), under a secret: a stranger who picks keys cannot
 * make them meet. Faster hashes lost because theirs can meet under every seed. One round per 8 bytes
 * and 3 at the end.
 */
#include "neap.h"

#include <endian.h>
#include <string.h>

struct sip { uint64_t a, b, c, d; };

static uint64_t rotated(uint64_t x, int left)
{
	return x << left | x >> (64 - left);
}

static inline struct sip sip_round(struct sip s)
{
	s.a += s.b;
	s.c += s.d;
	s.b = rotated(s.b, 13) ^ s.a;
	s.d = rotated(s.d, 16) ^ s.c;
	s.a = rotated(s.a, 32);
	s.c += s.b;
	s.a += s.d;
	s.b = rotated(s.b, 17) ^ s.c;
	s.d = rotated(s.d, 21) ^ s.a;
	s.c = rotated(s.c, 32);
	return s;
}

static inline struct sip sip_eat(struct sip s, uint64_t word)
{
	s.d ^= word;
	s = sip_round(s);
	s.a ^= word;
	return s;
}

/* Up to eight bytes as a number. */
static inline uint64_t word_of(const char *p, size_t size)
{
	uint64_t word = 0;
	memcpy(&word, p, size);
	return le64toh(word);
}

uint64_t neap_hash(const uint8_t *secret, const char *key, size_t size)
{
	uint64_t k[2];
	memcpy(k, secret, sizeof k);
	k[0] = le64toh(k[0]);
	k[1] = le64toh(k[1]);
	struct sip s = {
		k[0] ^ UINT64_C(0x736f6d6570736575), k[1] ^ UINT64_C(0x646f72616e646f6d),
		k[0] ^ UINT64_C(0x6c7967656e657261), k[1] ^ UINT64_C(0x7465646279746573),
	};
	size_t left = size;
	for (; left >= 8; left -= 8, key += 8)
		s = sip_eat(s, word_of(key, 8));
	s = sip_eat(s, word_of(key, left) | (uint64_t)size << 56);
	s.c ^= 0xff;
	s = sip_round(sip_round(sip_round(s)));
	return s.a ^ s.b ^ s.c ^ s.d;
}

uint64_t neap_hash_integer(const uint8_t *secret, int64_t key)
{
	char bytes[9] = {0};
	memcpy(bytes + 1, &key, 8);
	return ~neap_hash(secret, bytes, sizeof bytes);
}
