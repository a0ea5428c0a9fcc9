"""Embed the rows of a Spark data frame. Run: pip install st-modules pyspark pandas && python spark_frames.py."""

from pyspark.sql import SparkSession

from st_modules import BatchEmbedder

MODEL = "tiny"  # the one line to change: "gme-2b" embeds published quality
COLUMNS = "id long, text string, image string, vector array<float>, error string"


def main() -> None:
    # Spark pickles it, and each Python worker loads the model at its first batch.
    embed = BatchEmbedder(MODEL)
    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    rows = [(1, "a large red circle", None), (2, None, "missing.png")]
    frame = spark.createDataFrame(rows, "id long, text string, image string")
    for row in frame.mapInPandas(lambda frames: map(embed, frames), COLUMNS).collect():
        print(row.id, len(row.vector), row.error)
    spark.stop()


if __name__ == "__main__":
    main()
