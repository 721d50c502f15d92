// SPDX-License-Identifier: GPL-2.0-only
/*
 * What all parts of iommufd_split_fuzz use: how a worker calls the kernel, counts
 * and complains, how all of them are run, and how to read a number of /proc.
 */
#include <stdarg.h>
#include <time.h>

#include "iommufd_split_fuzz.h"

enum {
	/* Less than the minute after which iommufd gives up some waits */
	HANG_SECONDS = 40,
	PROGRESS_SECONDS = 20,
};

struct fuzz_run fuzz_run;
struct worker workers[MAX_WORKERS + 1];
unsigned int num_workers;
bool fuzz_failed;
bool fuzz_can_split;

const char *const op_names[OP_NR] = {
	[OP_OPEN] = "open",
	[OP_CLOSE] = "close",
	[OP_IOAS_ALLOC] = "ioas_alloc",
	[OP_IOVA_RANGES] = "iova_ranges",
	[OP_ALLOW_IOVAS] = "allow_iovas",
	[OP_OPTION] = "option",
	[OP_MAP] = "map",
	[OP_MAP_FILE] = "map_file",
	[OP_COPY] = "copy",
	[OP_UNMAP] = "unmap",
	[OP_SPLIT] = "split",
	[OP_JOIN] = "join",
	[OP_DESTROY] = "destroy",
	[OP_HWPT_ALLOC] = "hwpt_alloc",
	[OP_HW_INFO] = "hw_info",
	[OP_MOCK_DOMAIN] = "mock_device",
	[OP_REPLACE] = "replace",
	[OP_DIRTY_TRACKING] = "dirty_tracking",
	[OP_DIRTY_READ] = "dirty_read",
	[OP_SET_DIRTY] = "set_dirty",
	[OP_ACCESS_CREATE] = "access_create",
	[OP_ACCESS_REPLACE] = "access_replace",
	[OP_ACCESS_RW] = "access_rw",
	[OP_ACCESS_PIN] = "access_pin",
	[OP_ACCESS_UNPIN] = "access_unpin",
	[OP_CHANGE_PROCESS] = "change_process",
	[OP_DMABUF] = "dmabuf",
	[OP_LIMIT] = "memory_limit",
	[OP_CHECK_MAP] = "check_map",
};

int fuzz_count(struct worker *me, enum fuzz_op op, int err)
{
	struct step *step = &me->history[me->steps++ % HISTORY];

	me->stats[op][err < MAX_ERRNO ? err : MAX_ERRNO - 1]++;
	*step = (struct step){ .op = op, .err = err };
	/* Looks at the tables are not what is tested */
	if (op != OP_CHECK_MAP)
		me->calls++;
	__atomic_fetch_add(&me->progress, 1, __ATOMIC_RELAXED);
	return err;
}

int fuzz_call(struct worker *me, enum fuzz_op op, int fd, unsigned long request,
	      void *arg, int *out)
{
	int rc = ioctl(fd, request, arg);

	if (out)
		*out = rc;
	return fuzz_count(me, op, rc < 0 ? errno : 0);
}

void fuzz_note(struct worker *me, __u64 a, __u64 b, __u64 c)
{
	struct step *step = &me->history[(me->steps - 1) % HISTORY];

	step->a = a;
	step->b = b;
	step->c = c;
}

void fuzz_fail(struct worker *me, const char *format, ...)
{
	unsigned int i = me->steps > HISTORY ? me->steps - HISTORY : 0;
	char text[256];
	va_list args;

	/* The first one tells what happened, the rest follows from it */
	if (__atomic_exchange_n(&fuzz_failed, true, __ATOMIC_RELAXED))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	ksft_print_msg("FAILED in thread %u, round %u of seed %llu: %s\n",
		       me->index, fuzz_run.round, (unsigned long long)fuzz_run.seed,
		       text);
	for (; i != me->steps; i++) {
		struct step *step = &me->history[i % HISTORY];

		ksft_print_msg("  %-14s %-3d %llx %llx %llx\n",
			       op_names[step->op], step->err, step->a, step->b,
			       step->c);
	}
}

bool fuzz_expect(struct worker *me, const char *what, int got, int want)
{
	if (got == want)
		return true;
	fuzz_fail(me, "%s: %d (%s), not %d (%s)", what, got, strerror(got),
		  want, strerror(want));
	return false;
}

uint64_t all_calls(void)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i <= MAX_WORKERS; i++)
		sum += workers[i].calls;
	return sum;
}

unsigned int seconds(void)
{
	return time(NULL) - fuzz_run.started;
}

/* Report a thread that hangs, and exit: nobody can wait for it */
static void watch(void)
{
	static time_t told;
	uint64_t last[MAX_WORKERS] = {};
	time_t moved[MAX_WORKERS];
	bool done;

	for (unsigned int i = 0; i != MAX_WORKERS; i++)
		moved[i] = time(NULL);
	do {
		usleep(50000);
		done = true;
		for (unsigned int i = 0; i != num_workers; i++) {
			struct worker *worker = &workers[i];
			uint64_t now = __atomic_load_n(&worker->progress,
						       __ATOMIC_RELAXED);

			if (!worker->started ||
			    !pthread_tryjoin_np(worker->thread, NULL)) {
				worker->started = false;
				continue;
			}
			done = false;
			if (now != last[i])
				moved[i] = time(NULL);
			last[i] = now;
			if (time(NULL) - moved[i] > HANG_SECONDS) {
				fuzz_fail(worker,
					  "hangs for %u s in its next call",
					  HANG_SECONDS);
				ksft_exit_fail_msg("a thread hangs\n");
			}
		}
		if (time(NULL) - told >= PROGRESS_SECONDS) {
			told = time(NULL);
			ksft_print_msg("%u s: %llu calls\n", seconds(),
				       (unsigned long long)all_calls());
		}
	} while (!done);
}

bool run_workers(void *(*body)(void *worker), uint64_t seed, uint64_t calls)
{
	for (unsigned int i = 0; i != num_workers; i++) {
		struct worker *worker = &workers[i];

		worker->random = mix(seed + 1 + i);
		worker->budget = calls / num_workers;
		worker->started =
			!pthread_create(&worker->thread, NULL, body, worker);
		if (!worker->started)
			fuzz_fail(worker, "no thread");
	}
	watch();
	return !failed();
}

long number_in(const char *path, const char *key)
{
	FILE *file = fopen(path, "r");
	size_t length = strlen(key);
	char line[256];
	long value = -1;

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, key, length) &&
		    sscanf(line + length, " %ld", &value) == 1)
			break;
	fclose(file);
	return value;
}

long pinned_pages(void)
{
	long kb = number_in("/proc/self/status", "VmPin:");

	return kb == -1 ? -1 : kb * 1024 / PAGE;
}
