from app.core.api import Transaction
from app.core.database import async_engine
from app.features.benchmark.tables import BenchmarkOrder
from app.features.benchmark.tasks import benchmark_receipt
from fastapi import APIRouter
from sqlalchemy import text

router = APIRouter(prefix="/benchmark")


@router.post("/insert")
async def benchmark_insert(session: Transaction) -> int:
    """Insert a row."""
    order = BenchmarkOrder(email="ann@example.com")
    session.add(order)
    await session.flush()
    return order.id


@router.post("/insert-and-enqueue")
async def benchmark_insert_and_enqueue(session: Transaction) -> int:
    """Insert a row, and enqueue a run in the same transaction."""
    order = BenchmarkOrder(email="ann@example.com")
    session.add(order)
    await session.flush()
    await session.execute(benchmark_receipt.enqueue(order_id=order.id))
    return order.id


@router.get("/select")
async def benchmark_select() -> int:
    """Select a constant with a pooled connection."""
    async with async_engine().connect() as connection:
        return int(await connection.scalar(text("SELECT 1")) or 0)
