"""kubectl's questions about who one is and what one may do."""

from tests.wire.kubectl import Kubectl, since


def test_can_i_and_whoami(kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "create", "services").strip() == "yes"
    done = kubectl.run("auth", "can-i", "create", "services", "--as=somebody")
    assert (done.stdout.strip(), done.returncode) == ("no", 1)
    assert "selfsubjectaccessreviews.authorization.k8s.io" in kubectl("auth", "can-i", "--list")
    since(28)
    assert "system:masters" in kubectl("auth", "whoami")
