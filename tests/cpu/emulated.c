/* Runs kernels that arrive on standard input, each on guarded memory: the emulated side of emulator.py.

   A request, in 64-bit words but for the bytes: the lengths of a library's path and of a symbol, both texts, the number of slots,
   the slots, the number of ranges, and first and end item of each. A slot is (0, value, 0, 0), or (1, bytes, distance from the begin
   of the memory to where the slot points, whether it ends or begins at a page that can't be touched) and its bytes. The answer is
   the bytes of all memory slots after the kernel has run. A read or write outside of them ends the process. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PAGE = 4096, SLOTS = 64 };

typedef void kernel(int64_t *slots, int64_t begin, int64_t end, int64_t thread);

static void receive(void *to, size_t bytes)
{
    if (fread(to, 1, bytes, stdin) != bytes)
        exit(0);
}

static int64_t word(void)
{
    int64_t value;
    receive(&value, sizeof value);
    return value;
}

static unsigned char *guarded(size_t bytes, int64_t at_end)
{
    size_t pages = (bytes + PAGE - 1) / PAGE * PAGE;
    unsigned char *base = mmap(0, pages + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || (pages && mprotect(base + PAGE, pages, PROT_READ | PROT_WRITE)))
        exit(3);
    return base + PAGE + (at_end ? pages - bytes : 0);
}

int main(void)
{
    for (;;) {
        char path[4096] = "", symbol[256] = "";
        int64_t slots[SLOTS] = {0}, count;
        unsigned char *memory[SLOTS] = {0};
        size_t bytes[SLOTS] = {0};
        int64_t path_length = word(), symbol_length = word();
        receive(path, path_length);
        receive(symbol, symbol_length);
        count = word();
        for (int64_t slot = 0; slot < count; slot++) {
            int64_t kind = word(), value = word(), distance = word(), at_end = word();
            slots[slot] = value;
            if (kind == 1) {
                bytes[slot] = value;
                memory[slot] = guarded(value, at_end);
                receive(memory[slot], value);
                slots[slot] = (int64_t)memory[slot] + distance;
            }
        }
        void *library = dlopen(path, RTLD_NOW);
        kernel *run = library ? (kernel *)dlsym(library, symbol) : 0;
        if (!run) {
            fprintf(stderr, "%s\n", dlerror());
            return 4;
        }
        for (int64_t ranges = word(); ranges > 0; ranges--) {
            int64_t begin = word(), end = word();
            run(slots, begin, end, 0);
        }
        for (int64_t slot = 0; slot < count; slot++) {
            size_t pages = (bytes[slot] + PAGE - 1) / PAGE * PAGE;
            fwrite(memory[slot], 1, bytes[slot], stdout);
            if (memory[slot])
                munmap((void *)((uintptr_t)memory[slot] / PAGE * PAGE - (bytes[slot] ? PAGE : 0)), pages + 2 * PAGE);
        }
        fflush(stdout);
    }
}
