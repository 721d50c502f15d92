// SPDX-License-Identifier: GPL-2.0-only
/* What the kernel says about DMA: fault reports and IOMMU page tables. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/bits.h>
#include <linux/kernel.h>
#include <linux/limits.h>
#include <linux/sizes.h>

#include "split_dma.h"

u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/*
 * One entry per IOMMU driver: how a line about a fault is recognised and where
 * it names device, address and kind of access.
 */
struct fault_format {
	const char *match;
	const char *addr;	/* text before the address */
	int base;
	const char *devid;	/* text before a numeric requester id, else BDF */
	const char *read;
	const char *write;
	const char *limited;	/* function named in "callbacks suppressed" */
	bool zero_is_unknown;	/* address 0 may mean "not reported" */
	bool bursts;		/* one fault is reported many times */
};

static const struct fault_format fault_formats[] = {
	{
		/* DMAR: [DMA Read NO_PASID] Request device [0000:00:02.0] fault addr 0x1000 */
		.match = "DMAR: [DMA ",
		.addr = "fault addr ",
		.base = 16,
		.read = "[DMA Read",
		.write = "[DMA Write",
		.limited = "dmar_fault: ",
	},
	{
		/* AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0001 address=0x1000 flags=0x0020] */
		.match = "[IO_PAGE_FAULT ",
		.addr = "address=",
		.base = 16,
		.limited = "amd_iommu_report_page_fault: ",
		.zero_is_unknown = true,
		.bursts = true,
	},
	{
		/* Fault 13 devid: 0x10 iotval: 1000 iotval2: 0 (13 read, 15 write) */
		.match = "Fault 1",
		.addr = "iotval: ",
		.base = 16,
		.devid = "devid: ",
		.read = "Fault 13 ",
		.write = "Fault 15 ",
		.limited = "riscv_iommu_fault: ",
		.bursts = true,
	},
	{
		/* event: F_TRANSLATION client: 0000:00:02.0 sid: 0x10 ssid: 0 iova: 0x1000 */
		.match = " event: F_",
		.addr = " iova: ",
		.base = 16,
		.limited = "arm_smmu_dump_event: ",
		.bursts = true,
	},
};

void fault_log_close(struct fault_log *log)
{
	close(log->fd);
}

static bool fault_is_ours(const struct fault_format *fmt, const char *text,
			  const char *bdf)
{
	unsigned int seg, bus, dev, fn;
	const char *p;

	if (!fmt->devid)
		return strstr(text, bdf);

	p = strstr(text, fmt->devid);
	if (!p || sscanf(bdf, "%x:%x:%x.%x", &seg, &bus, &dev, &fn) != 4)
		return false;
	return strtoul(p + strlen(fmt->devid), NULL, 0) ==
	       (bus << 8 | dev << 3 | fn);
}

static bool fault_parse(struct fault_log *log, const char *text,
			struct fault_report *report)
{
	const struct fault_format *fmt;
	const char *p;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(fault_formats); i++) {
		fmt = &fault_formats[i];

		if (!strncmp(text, fmt->limited, strlen(fmt->limited)) &&
		    strstr(text, "callbacks suppressed")) {
			u64 nr = strtoull(text + strlen(fmt->limited), NULL, 10);

			/*
			 * Printed with the next fault that gets through: before
			 * our first report it is about somebody else's faults.
			 */
			if (!log->reports)
				log->inherited += nr;
			else if (fmt->bursts)
				log->repeated += nr;
			else
				log->suppressed += nr;
			return false;
		}

		p = strstr(text, fmt->addr);
		if (!strstr(text, fmt->match) || !p)
			continue;

		if (!fault_is_ours(fmt, text, log->bdf)) {
			log->foreign++;
			return false;
		}

		memset(report, 0, sizeof(*report));
		snprintf(report->text, sizeof(report->text), "%.*s",
			 (int)strcspn(text, "\n"), text);
		report->iova = strtoull(p + strlen(fmt->addr), NULL, fmt->base);
		report->has_iova = report->iova || !fmt->zero_is_unknown;
		log->bursts = fmt->bursts;
		if (fmt->read && strstr(text, fmt->read))
			report->access = FAULT_READ;
		if (fmt->write && strstr(text, fmt->write))
			report->access = FAULT_WRITE;
		return true;
	}
	return false;
}

/* Next report, and when it was printed. */
static bool fault_read(struct fault_log *log, struct fault_report *report, u64 *ns)
{
	char record[4096];
	char *text;
	ssize_t n;

	for (;;) {
		n = read(log->fd, record, sizeof(record) - 1);
		if (n < 0 && errno == EPIPE) {
			log->lost++;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		record[n] = 0;
		/* "prio,seq,usec,flags;text" */
		text = strchr(record, ';');
		if (!text || sscanf(record, "%*u,%*u,%lu", ns) != 1)
			continue;
		*ns *= 1000;
		if (!fault_parse(log, text + 1, report))
			continue;

		/* A burst leaves no room for the next fault's report */
		do {
			log->recent[log->next] = *ns;
			log->next = (log->next + 1) % FAULT_BURST;
		} while (log->bursts && log->next);
		return true;
	}
}

bool fault_log_next(struct fault_log *log, struct fault_report *report)
{
	u64 ns;

	if (!fault_read(log, report, &ns))
		return false;
	log->reports++;
	return true;
}

void fault_log_open(struct fault_log *log, const char *bdf)
{
	struct fault_report report;
	u64 ns;

	memset(log, 0, sizeof(*log));
	log->bdf = bdf;
	log->fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	VFIO_ASSERT_GE(log->fd, 0,
		       "cannot read fault reports from /dev/kmsg: needs root, CONFIG_PRINTK\n");

	/* Faults of earlier tests still count against the rate limit */
	while (fault_read(log, &report, &ns))
		;
	log->lost = 0;
	log->foreign = 0;
	log->inherited = 0;
}

bool fault_log_ready(struct fault_log *log)
{
	u64 oldest = log->recent[log->next];

	/* The log's clock may be ahead of ours */
	return !oldest || now_ns() > oldest + FAULT_INTERVAL_NS;
}

void fault_log_pace(struct fault_log *log)
{
	while (!fault_log_ready(log))
		usleep(10000);
}

/* Page tables -------------------------------------------------------------- */

static void ptable_add(struct ptable *pt, const struct leaf *leaf)
{
	if (pt->nr == pt->max) {
		pt->max = pt->max ? pt->max * 2 : 1024;
		pt->leaf = realloc(pt->leaf, pt->max * sizeof(*pt->leaf));
		VFIO_ASSERT_NOT_NULL(pt->leaf);
	}
	pt->leaf[pt->nr++] = *leaf;
}

void ptable_free(struct ptable *pt)
{
	free(pt->leaf);
	memset(pt, 0, sizeof(*pt));
}

/*
 * The directory that iommufd has in debugfs for this IOAS, with the file name
 * behind it. False if there is none.
 */
static bool ioas_file(struct iommu *iommu, const char *name, char *path, size_t len)
{
	char fdinfo[64], line[128], pattern[128];
	unsigned int number;
	bool found = false;
	glob_t files;
	FILE *file;

	snprintf_assert(fdinfo, sizeof(fdinfo), "/proc/self/fdinfo/%d", iommu->iommufd);
	file = fopen(fdinfo, "r");
	VFIO_ASSERT_NOT_NULL(file);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "iommufd-debugfs: %u", &number) != 1)
			continue;
		snprintf_assert(pattern, sizeof(pattern),
				"/sys/kernel/debug/iommufd/*-%u/ioas-%u/%s", number,
				iommu->ioas_id, name);
		if (glob(pattern, 0, NULL, &files))
			continue;
		VFIO_ASSERT_EQ(files.gl_pathc, 1);
		snprintf_assert(path, len, "%s", files.gl_pathv[0]);
		globfree(&files);
		found = true;
	}
	fclose(file);
	return found;
}

#define NO_IOAS "no IOAS in debugfs, mount it and enable CONFIG_IOMMUFD_DEBUGFS"

const char *ioas_summary(struct iommu *iommu, char **text)
{
	char path[PATH_MAX];
	size_t len = 0;
	FILE *file;

	*text = NULL;
	if (!ioas_file(iommu, "summary", path, sizeof(path)))
		return NO_IOAS;
	file = fopen(path, "r");
	VFIO_ASSERT_NOT_NULL(file);
	VFIO_ASSERT_GT(getdelim(text, &len, 0, file), 0);
	fclose(file);
	return NULL;
}

/* What the only HWPT of the IOAS is made of */
static bool read_summary(struct ptable *pt, const char *path)
{
	char *line = NULL;
	bool found = false;
	size_t len = 0;
	u32 id;
	FILE *file;

	file = fopen(path, "r");
	VFIO_ASSERT_NOT_NULL(file);
	while (getline(&line, &len, file) > 0) {
		if (strncmp(line, "hwpt ", 5))
			continue;
		VFIO_ASSERT_FALSE(found);
		if (sscanf(line, "hwpt %u page_sizes %lx tables %u", &id, &pt->page_sizes,
			   &pt->tables) != 3)
			break;
		found = true;
	}
	free(line);
	fclose(file);
	return found;
}

/* There may be 100,000 lines, and an emulated CPU: no scanf. */
static bool parse_leaf(const char *line, struct leaf *leaf)
{
	u64 hwpt, *fields[] = { &hwpt, &leaf->iova, &leaf->size, &leaf->oa, &leaf->attr };
	char *end;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(fields); i++, line = end) {
		*fields[i] = strtoull(line, &end, 0);
		if (end == line)
			return false;
	}
	return *line == '\n';
}

const char *ptable_read(struct ptable *pt, struct iommu *iommu, u64 iova, u64 size)
{
	char path[PATH_MAX];
	char *line = NULL;
	struct leaf leaf;
	size_t len = 0;
	FILE *file;

	memset(pt, 0, sizeof(*pt));
	if (!ioas_file(iommu, "summary", path, sizeof(path)))
		return NO_IOAS;
	if (!read_summary(pt, path))
		return "the page tables are unknown, enable CONFIG_IOMMU_PT_RUST";
	if (!ioas_file(iommu, "leaves", path, sizeof(path)))
		return "no leaves in debugfs, enable CONFIG_IOMMU_DEBUGFS";

	file = fopen(path, "r");
	VFIO_ASSERT_NOT_NULL(file);
	while (getline(&line, &len, file) > 0) {
		if (line[0] == '#')
			continue;
		VFIO_ASSERT_TRUE(parse_leaf(line, &leaf));
		if (leaf.iova >= iova + size || leaf.iova + leaf.size <= iova)
			continue;
		/* A leaf that is not aligned to its size is a broken entry */
		VFIO_ASSERT_EQ(0, (leaf.iova | leaf.oa) & (leaf.size - 1));
		VFIO_ASSERT_NE(0, pt->page_sizes & leaf.size);
		ptable_add(pt, &leaf);
	}
	VFIO_ASSERT_FALSE(ferror(file));
	free(line);
	fclose(file);
	return NULL;
}

u32 ptable_count(const struct ptable *pt, u64 leaf_size)
{
	u32 i, nr = 0;

	for (i = 0; i < pt->nr; i++)
		nr += pt->leaf[i].size == leaf_size;
	return nr;
}

/* The first of the two cuts that lies behind @iova, or @last. */
static u64 next_cut(u64 iova, u64 last, u64 start, u64 end)
{
	u64 cut = last;

	if (start > iova && start < cut)
		cut = start;
	if (end > iova && end < cut)
		cut = end;
	return cut;
}

/* As large as alignment, the cuts and the old leaf let each be */
static void cut_leaf(struct ptable *out, struct leaf leaf, u64 start, u64 end)
{
	u64 last = leaf.iova + leaf.size;
	struct leaf child = leaf;

	if (next_cut(leaf.iova, last, start, end) == last) {
		ptable_add(out, &leaf);
		return;
	}

	for (; child.iova < last; child.iova += child.size, child.oa += child.size) {
		u64 room = next_cut(child.iova, last, start, end) - child.iova;

		child.size = leaf.size;
		while (child.size > room || child.iova & (child.size - 1) ||
		       !(out->page_sizes & child.size))
			child.size /= 2;
		VFIO_ASSERT_NE(0, child.size);
		ptable_add(out, &child);
	}
}

void ptable_cut(const struct ptable *before, u64 start, u64 end, struct ptable *out)
{
	u32 i;

	memset(out, 0, sizeof(*out));
	out->page_sizes = before->page_sizes;
	for (i = 0; i < before->nr; i++)
		cut_leaf(out, before->leaf[i], start, end);
	out->tables = before->tables + ptable_needs(out) - ptable_needs(before);
}

u32 ptable_needs(const struct ptable *pt)
{
	/* A table has the size of the smallest page, and entries of 8 bytes */
	u64 page_lg2 = __builtin_ctzl(pt->page_sizes);
	u64 items_lg2 = page_lg2 - 3;
	u64 lg2, at, table;
	u32 i, nr = 0;

	for (lg2 = page_lg2 + items_lg2; lg2 <= 48; lg2 += items_lg2) {
		at = -1;
		for (i = 0; i < pt->nr; i++) {
			table = pt->leaf[i].iova >> lg2;
			if (pt->leaf[i].size >> lg2 || table == at)
				continue;
			at = table;
			nr++;
		}
	}
	return nr;
}

void ptable_punch(const struct ptable *before, u64 start, u64 end, struct ptable *out)
{
	u32 i;

	memset(out, 0, sizeof(*out));
	out->page_sizes = before->page_sizes;
	out->tables = before->tables;
	for (i = 0; i < before->nr; i++) {
		if (before->leaf[i].iova < start || before->leaf[i].iova >= end)
			ptable_add(out, &before->leaf[i]);
	}
}

static void leaf_print(const char *what, const struct ptable *pt, u32 i)
{
	const struct leaf *leaf = &pt->leaf[i];

	if (i >= pt->nr)
		printf("# %s: leaf %u does not exist\n", what, i);
	else
		printf("# %s: leaf %u: iova 0x%lx size %s oa 0x%lx attr 0x%lx\n",
		       what, i, leaf->iova, leaf_size_name(leaf->size), leaf->oa,
		       leaf->attr);
}

bool ptable_equal(const struct ptable *want, const struct ptable *have)
{
	u32 i;

	for (i = 0; i < want->nr || i < have->nr; i++) {
		if (i < want->nr && i < have->nr &&
		    !memcmp(&want->leaf[i], &have->leaf[i], sizeof(struct leaf)))
			continue;
		leaf_print("page table, expected", want, i);
		leaf_print("page table, observed", have, i);
		return false;
	}
	return true;
}

/* First leaf from @from on that ends behind @iova. */
static u32 ptable_seek(const struct ptable *pt, u32 from, u64 iova)
{
	while (from < pt->nr && pt->leaf[from].iova + pt->leaf[from].size <= iova)
		from++;
	return from;
}

bool ptable_same_translation(const struct ptable *base, const struct ptable *pt,
			     u64 iova, u64 size, u64 start, u64 end)
{
	const struct leaf *was, *is;
	u64 addr = iova, next;
	u32 i = 0, j = 0;

	while (addr < iova + size) {
		i = ptable_seek(base, i, addr);
		j = ptable_seek(pt, j, addr);
		if (i == base->nr)
			break;
		was = &base->leaf[i];
		is = &pt->leaf[j];

		if (addr >= start && addr < end) {
			if (j < pt->nr && is->iova < end)
				break;
			addr = end;
			continue;
		}

		if (j == pt->nr || is->iova > addr || was->iova > addr ||
		    is->attr != was->attr ||
		    is->oa + (addr - is->iova) != was->oa + (addr - was->iova))
			break;
		next = min(is->iova + is->size, was->iova + was->size);
		addr = addr < start ? min(next, start) : next;
	}
	if (addr >= iova + size)
		return true;

	printf("# page table: wrong at iova 0x%lx, %s the hole\n", addr,
	       addr >= start && addr < end ? "in" : "outside");
	leaf_print("page table, expected", base, i);
	leaf_print("page table, observed", pt, j);
	return false;
}

const char *leaf_size_name(u64 size)
{
	static const char * const names[] = {
		"4K", "8K", "16K", "32K", "64K", "128K", "256K", "512K",
		"1M", "2M", "4M", "8M", "16M", "32M", "64M", "128M", "256M", "512M",
		"1G",
	};
	u32 i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (size == (u64)SZ_4K << i)
			return names[i];
	}
	return "?";
}

const char *ptable_summary(const struct ptable *pt, char *buf, size_t len)
{
	size_t used = 0;
	u64 size;
	u32 nr;

	snprintf(buf, len, "nothing mapped");
	for (size = SZ_1G; size >= SZ_4K; size /= 2) {
		nr = ptable_count(pt, size);
		if (nr && used < len)
			used += snprintf(buf + used, len - used, "%s%u x %s",
					 used ? " + " : "", nr, leaf_size_name(size));
	}
	return buf;
}
