from app.core.database import Base
from sqlalchemy.orm import Mapped, mapped_column


class BenchmarkOrder(Base):
    """A row of the application; the benchmark creates the table."""

    __tablename__ = "benchmark_orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
