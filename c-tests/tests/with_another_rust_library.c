/* SPDX-License-Identifier: GPL-2.0-only */
/* The static library beside another one of Rust's, in one program: both work. */
#include "host.h"
#include "test.h"

int other_add(int a, int b);
int other_catches(void);

int main(void)
{
    QEMUFile *f = host_file();

    same(other_add(3, 4), 7);
#ifdef UNWINDS
    same(other_catches(), 1);
#endif
    host_disk("vda", 3 * CHUNK_SECTORS + 1);
    host_start();
    check(host_migrate(f, 100, NULL));
    check(host_delivered(f));
    ok(host_load(f));
    host_file_free(f);
    host_end();
    same(other_add(5, 6), 11);
    return 0;
}
