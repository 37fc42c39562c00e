/* Each name with the addresses that getaddrinfo has for it. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>

int main(int count, char **names) {
	for (int at = 1; at < count; at++) {
		struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all = 0;
		int error = getaddrinfo(names[at], 0, &hints, &all);
		if (error) {
			printf("%s: %s\n", names[at], gai_strerror(error));
			continue;
		}
		printf("%s", names[at]);
		for (struct addrinfo *one = all; one; one = one->ai_next) {
			char text[NI_MAXHOST];
			getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
			printf(" %s", text);
		}
		puts("");
		freeaddrinfo(all);
	}
	return 0;
}
