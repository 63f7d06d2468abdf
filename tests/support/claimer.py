"""A worker process that claims and ends tasks over HTTP without running anything: `python -m tests.support.claimer`.

Arguments: the server's address, the label `pool` to serve, how many tasks to claim at once. The token comes on standard
input. It waits for a line on standard input before its first claim, so that many begin at once, and prints the ids of
the tasks that it was granted, one a line, once there are none left.
"""

import sys
import uuid

from banyan.client import Client, Document


def main(url: str, pool: str, count: int) -> None:
    """Claim until nothing is left."""
    token = sys.stdin.readline().strip()
    with Client(url, token) as client:
        body: Document = {"name": f"claimer-{uuid.uuid4().hex[:8]}", "resources": {"cores": count}}
        body |= {"labels": {"pool": pool}, "capabilities": ["shell"]}
        worker = client.register_worker(body)["_id"]
        print("ready", flush=True)
        sys.stdin.readline()
        while grants := _claim(client, worker, count):
            print("\n".join(grant["_id"] for grant in grants), flush=True)
            ends = [{"execution": g["execution"], "token": g["token"], "exit_status": "success"} for g in grants]
            answer = client.report(worker, {"reports": ends})
            if answer["stale"]:
                raise SystemExit(f"stale: {answer['stale']}")
        client.close_worker(worker)


def _claim(client: Client, worker: str, count: int) -> list[Document]:
    body = {"request": uuid.uuid4().hex, "resources": {"cores": count}, "max_tasks": count, "held": [], "wait": 1}
    return list(client.claim(worker, body)["tasks"])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
