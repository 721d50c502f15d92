/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The wasm's own memory, its stack and its constants, in place of wasm2c's. Every
 * byte is kept three times, by itself and as a part of its half and of its word,
 * so that CBMC knows what was stored as a constant for one, whatever else the
 * others have. Sums and products in place of shifts: of these it knows what is
 * left when they are cut to fewer bits.
 */
static u8 bytes[MEMORY_BYTES];
static u16 halves[MEMORY_BYTES / 2];
static u32 words[MEMORY_BYTES / 4];

static u32 i32_load8_u(wasm_rt_memory_t *mem, u64 at)
{
	(void)mem;
	assert(at < MEMORY_BYTES);
	return bytes[at];
}

static u32 i32_load16_u(wasm_rt_memory_t *mem, u64 at)
{
	if (at & 1)
		return i32_load8_u(mem, at) + i32_load8_u(mem, at + 1) * 0x100;
	assert(at < MEMORY_BYTES);
	return halves[at / 2];
}

static u32 i32_load(wasm_rt_memory_t *mem, u64 at)
{
	if (at & 3)
		return i32_load16_u(mem, at) + i32_load16_u(mem, at + 2) * 0x10000;
	assert(at < MEMORY_BYTES);
	return words[at / 4];
}

static void store_word(u64 word)
{
	words[word] = halves[2 * word] + halves[2 * word + 1] * 0x10000u;
}

static void i32_store8(wasm_rt_memory_t *mem, u64 at, u32 value)
{
	u64 half = at / 2;

	(void)mem;
	assert(at < MEMORY_BYTES);
	bytes[at] = value;
	halves[half] = bytes[2 * half] + bytes[2 * half + 1] * 0x100u;
	store_word(at / 4);
}

static void i32_store16(wasm_rt_memory_t *mem, u64 at, u32 value)
{
	if (at & 1) {
		i32_store8(mem, at, value);
		i32_store8(mem, at + 1, value >> 8);
		return;
	}
	assert(at < MEMORY_BYTES);
	bytes[at] = value;
	bytes[at + 1] = value >> 8;
	halves[at / 2] = value;
	store_word(at / 4);
}

static void i32_store(wasm_rt_memory_t *mem, u64 at, u32 value)
{
	if (at & 3) {
		i32_store16(mem, at, value);
		i32_store16(mem, at + 2, value >> 16);
		return;
	}
	assert(at < MEMORY_BYTES);
	bytes[at] = value;
	bytes[at + 1] = value >> 8;
	bytes[at + 2] = value >> 16;
	bytes[at + 3] = value >> 24;
	halves[at / 2] = value;
	halves[at / 2 + 1] = value >> 16;
	words[at / 4] = value;
}

static void load_memory(u32 at, const u8 *data, u32 count)
{
	for (u32 i = 0; i < count; i++)
		i32_store8(0, at + i, data[i]);
}
