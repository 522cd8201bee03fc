async def test_x(database):
    from kit import factories
    ids = await database.write(lambda tx: factories.add_nodes(tx, 2))
    assert len(ids) == 2
async def test_y(database):
    pass
