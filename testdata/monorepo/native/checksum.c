/* Prints the CRC-32 of standard input, as gzip computes it. */
#include <stdint.h>
#include <stdio.h>

int main(void)
{
    uint32_t sum = UINT32_MAX;
    for (int byte; (byte = getchar()) != EOF;) {
        sum ^= (uint32_t)byte;
        for (int bit = 0; bit < 8; bit++)
            sum = (sum >> 1) ^ (sum & 1 ? 0xedb88320u : 0);
    }
    printf("%08x\n", (unsigned)~sum);
    return ferror(stdin) ? 1 : 0;
}
