/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The wasm's own memory, its stack and its constants, in place of wasm2c's. Every
 * byte is kept twice, by itself and as a part of its word, so that CBMC knows
 * what was stored as a constant for one, whatever else the other has.
 */
static u8 bytes[MEMORY_BYTES];
static u32 words[MEMORY_BYTES / 4];

static u32 i32_load8_u(wasm_rt_memory_t *mem, u64 at)
{
	(void)mem;
	assert(at < MEMORY_BYTES);
	return bytes[at];
}

static u32 i32_load16_u(wasm_rt_memory_t *mem, u64 at)
{
	return i32_load8_u(mem, at) | i32_load8_u(mem, at + 1) << 8;
}

static u32 i32_load(wasm_rt_memory_t *mem, u64 at)
{
	if (at & 3)
		return i32_load16_u(mem, at) | i32_load16_u(mem, at + 2) << 16;
	assert(at < MEMORY_BYTES);
	return words[at / 4];
}

static void i32_store8(wasm_rt_memory_t *mem, u64 at, u32 value)
{
	u64 word = at & ~3ull;

	(void)mem;
	assert(at < MEMORY_BYTES);
	bytes[at] = value;
	words[at / 4] = bytes[word] | (u32)bytes[word + 1] << 8 | (u32)bytes[word + 2] << 16 | (u32)bytes[word + 3] << 24;
}

static void i32_store16(wasm_rt_memory_t *mem, u64 at, u32 value)
{
	i32_store8(mem, at, value);
	i32_store8(mem, at + 1, value >> 8);
}

static void i32_store(wasm_rt_memory_t *mem, u64 at, u32 value)
{
	if (at & 3) {
		i32_store16(mem, at, value);
		i32_store16(mem, at + 2, value >> 16);
		return;
	}
	assert(at < MEMORY_BYTES);
	words[at / 4] = value;
	bytes[at] = value;
	bytes[at + 1] = value >> 8;
	bytes[at + 2] = value >> 16;
	bytes[at + 3] = value >> 24;
}

static void load_memory(u32 at, const u8 *data, u32 count)
{
	for (u32 i = 0; i < count; i++)
		i32_store8(0, at + i, data[i]);
}
