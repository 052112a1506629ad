/* SPDX-License-Identifier: MIT */
/* pages.c - memory that is given back in pieces.
 *
 * A table of ten million keys has 200 MB, and free() of it is one call of more than 10 ms: the
 * system takes 50,000 pages back while everybody waits. calloc() is slow, too, where the allocator
 * clears memory that it had before. So what is large comes from the system itself, which clears a
 * page when it is touched first, 1 or 2 us each; and goes back 64 KiB at a time, 10 us each, from
 * the front on, as its owner has no more use for it. What is small is the allocator's.
 *
 *      | gone: not to be touched | piece | piece | piece |
 *      0                         from    to: gives the first of them
 *
 * Huge pages (2 MB) would make a take from millions of keys a quarter faster. But who touches one
 * first waits until all of it is cleared, here for almost 5 ms, and that is one caller's wait.
 */
#include "pages.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef NEAP_PIECE   /* a test has smaller ones, so that small tables have many */
#define NEAP_PIECE (1 << 16)
#endif

enum { PIECE = NEAP_PIECE, LINE = 64 };

void *neap_pages_open(size_t size)
{
	if (size >= PIECE) {
		void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		return memory == MAP_FAILED ? NULL : memory;
	}
	size = (size + LINE - 1) / LINE * LINE;
	void *memory = aligned_alloc(LINE, size);
	return memory ? memset(memory, 0, size) : NULL;
}

size_t neap_pages_give(void *memory, size_t size, size_t from, size_t to)
{
	if (size < PIECE || (to - from < PIECE && to < size))
		return from;
	to = to - from < PIECE ? size : from + PIECE;
	munmap((char *)memory + from, to - from);
	return to;
}

void neap_pages_close(void *memory, size_t size, size_t from)
{
	if (memory && size >= PIECE && from < size)
		munmap((char *)memory + from, size - from);
	else if (size < PIECE)
		free(memory);
}
