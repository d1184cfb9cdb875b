"""The in-memory nf_tables refuses what the kernel refuses, and then nothing has changed."""

import errno

import pytest

from svcplane.base.net import Family
from svcplane.kernel.nft import objects as o
from svcplane.kernel.nft.fake import FakeNft

TABLE = o.TableName(Family.IPV4, "t")
SPEC = o.Set("s", (o.DataType.MARK,), (o.DataType.MARK,), size=2)


def element(key: int, data: int) -> o.Element:
    return o.Element(key.to_bytes(4, "big"), data.to_bytes(4, "big"))


async def made() -> FakeNft:
    nft = FakeNft()
    changes = (o.AddTable(), o.AddChain(o.Chain("c")), o.AddSet(SPEC), o.AddElements(SPEC, (element(1, 1),)))
    await nft.commit(TABLE, changes)
    return nft


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (o.AddElements(SPEC, (element(1, 2),)), errno.EEXIST),
        (o.AddElements(SPEC, (element(2, 2), element(3, 3))), errno.ENFILE),
        (o.DeleteElements(SPEC, (element(9, 9),)), errno.ENOENT),
        (o.AddRule("absent", o.Rule(())), errno.ENOENT),
        (o.AddRule("c", o.Rule((o.Lookup("absent", 0),))), errno.ENOENT),
        (o.DeleteSet("absent"), errno.ENOENT),
    ],
)
async def test_refused_change_leaves_the_table_as_it_was(change: o.Change, code: int) -> None:
    nft = await made()
    before, generation = await nft.read(TABLE), await nft.generation()
    with pytest.raises(o.NftError) as caught:
        await nft.commit(TABLE, (o.AddChain(o.Chain("d")), change))
    assert caught.value.code == code
    assert (await nft.read(TABLE), await nft.generation()) == (before, generation)


async def test_replacing_an_element_in_one_transaction_is_allowed() -> None:
    nft = await made()
    await nft.commit(TABLE, (o.DeleteElements(SPEC, (element(1, 1),)), o.AddElements(SPEC, (element(1, 2),))))
    assert (await nft.read_elements(TABLE, SPEC))[element(1, 2).key] == element(1, 2)


async def test_set_in_use_cannot_be_deleted_until_the_rule_is_gone() -> None:
    nft = await made()
    await nft.commit(TABLE, (o.AddRule("c", o.Rule((o.Lookup("s", 0),))),))
    with pytest.raises(o.NftError) as caught:
        await nft.commit(TABLE, (o.DeleteSet("s"),))
    assert caught.value.code == errno.EBUSY
    await nft.commit(TABLE, (o.FlushChain("c"), o.DeleteSet("s")))


async def test_commit_on_another_generation_is_refused() -> None:
    nft = await made()
    generation = await nft.generation()
    nft.touch()
    with pytest.raises(o.GenerationChanged):
        await nft.commit(TABLE, (o.DeleteTable(),), generation)
