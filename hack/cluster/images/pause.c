/* Holds a pod's namespaces open, and as their first process reaps the orphans of containers that share its pid namespace. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	sigset_t waited;
	int number;

	/* Blocked and waited for, not handled: nothing here runs in a signal handler. */
	sigemptyset(&waited);
	sigaddset(&waited, SIGCHLD);
	sigaddset(&waited, SIGINT);
	sigaddset(&waited, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &waited, NULL) != 0)
		return 1;
	for (;;) {
		if (sigwait(&waited, &number) != 0)
			return 1;
		if (number != SIGCHLD)
			return 0;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}
